"""The page in a real browser: login, upload, prediction, threshold, messages, limits, files, and no request elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import Predictor
from condseg_sdk.images.load import load_image
from tests.helpers.browser import WATCH, open_page, requests_of, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra [app]"),  # its import takes three seconds
]

APP = WATCH + "sys.argv[1:1] = ['app']; from condseg_sdk.cli import main; sys.exit(main())"
LIMITS = ("--max-upload", "1", "--max-pixels", "400000", "--max-frames", "3")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app") / "log.txt"


@pytest.fixture(scope="module")
def page(checkpoint: Path, log: Path) -> Iterator[Any]:
    """The page after the login; at its end the server is stopped and must leave nothing behind."""
    command = ["-c", APP, "--port", "0", "--model", str(checkpoint), "--device", "cpu", "--user", "jane", *LIMITS]
    folder = log.parent / "temporary"
    folder.mkdir()
    environment = {"CONDSEG_APP_PASSWORD": "right", "TMPDIR": str(folder)}
    with running(command, log, **environment) as url, open_page() as page:
        page.goto(url)
        page.wait_for_selector("input[type=password]")
        assert page.locator("#upload").count() == 0
        for password in ("wrong", "right"):
            page.fill("input >> nth=0", "jane")
            page.fill("input[type=password]", password)
            page.click("button")
            if password == "wrong":
                page.wait_for_selector("text=Incorrect")
        page.wait_for_selector("#example")
        yield page
    assert "condseg: stopped" in log.read_text()
    assert list(folder.iterdir()) == []  # no upload is left behind


def upload(page: Any, path: Path) -> str:
    """Upload a file and return the status after it."""
    if page.locator("#upload button[aria-label=Clear]").count():
        page.click("#upload button[aria-label=Clear]")
        page.wait_for_function("document.querySelector('#status').innerText.includes('Choose an image')")
    page.set_input_files("#upload input[type=file]", path)
    page.wait_for_function("!document.querySelector('#status').innerText.includes('Choose an image')")
    return page.inner_text("#status")


def set_threshold(page: Any, value: float) -> None:
    before = page.inner_text("#values")
    page.fill("#threshold input[type=number]", str(value))
    page.press("#threshold input[type=number]", "Enter")
    page.wait_for_function("before => document.querySelector('#values').innerText != before", arg=before)


def test_the_page_says_that_it_is_not_a_medical_device(page: Any) -> None:
    assert page.locator("text=Not a medical device").count() == 1


def test_the_example_is_segmented_and_the_threshold_changes_the_mask(page: Any, tmp_path: Path) -> None:
    page.click("#example")
    page.wait_for_function("document.querySelector('#status').innerText.includes('segmented in')")
    page.wait_for_selector("#mask img")
    status, first, mask = (
        page.inner_text("#status"),
        page.inner_text("#values"),
        page.get_attribute("#mask img", "src"),
    )
    assert "pixels" in first
    set_threshold(page, 0.45)
    page.wait_for_function("before => document.querySelector('#mask img').src != before", arg=mask)
    assert page.inner_text("#status") == status  # with its time: the network did not run again
    page.screenshot(path=tmp_path / "example.png", full_page=True)


def test_the_files_are_the_prediction_at_the_chosen_threshold(
    page: Any, checkpoint: Path, example_files: Path, tmp_path: Path
) -> None:
    assert "frame.jpg: 120 x 90 pixels, segmented in" in upload(page, example_files / "frame.jpg")
    set_threshold(page, 0.5)  # another one than the test above has left on the page
    page.click("#write")
    with page.expect_download() as waiting:
        page.click("#files a >> nth=0")
    waiting.value.save_as(tmp_path / "mask.png")
    expected = Predictor.from_pretrained(checkpoint, device="cpu")(example_files / "frame.jpg", threshold=0.5)
    assert np.mean((load_image(tmp_path / "mask.png")[..., 0] > 0) != expected.mask) < 1e-3
    page.screenshot(path=tmp_path / "files.png", full_page=True)


def test_a_file_that_is_no_image_gives_a_message_and_removes_the_last_result(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    assert "notes.png is not an image that can be read; save it as PNG" in upload(page, tmp_path / "notes.png")
    assert page.locator("#mask img").count() == 0
    assert page.inner_text("#values") == ""
    page.screenshot(path=tmp_path / "message.png", full_page=True)


def test_too_many_pixels_and_too_many_bytes_are_refused(page: Any, tmp_path: Path) -> None:
    Image.new("L", (1000, 401)).save(tmp_path / "wide.png")
    message = upload(page, tmp_path / "wide.png")
    assert "wide.png has 401,000 pixels, more than 400,000; make it smaller" in message
    page.click("#upload button[aria-label=Clear]")
    (tmp_path / "large.png").write_bytes(bytes(1_200_000))
    page.set_input_files("#upload input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=/exceeds? .*maximum/i")
    page.screenshot(path=tmp_path / "too_large.png", full_page=True)


def test_the_frames_of_a_video_can_be_looked_at(page: Any, example_files: Path, tmp_path: Path) -> None:
    page.reload()
    page.wait_for_selector("#example")
    assert "3 frames of 120 x 90 pixels" in upload(page, example_files / "colonoscopy.mp4")
    page.wait_for_selector("#frame input[type=range]")
    first = page.get_attribute("#overlay img", "src")
    page.fill("#frame input[type=number]", "2")
    page.press("#frame input[type=number]", "Enter")
    page.wait_for_function("before => document.querySelector('#overlay img').src != before", arg=first)
    page.screenshot(path=tmp_path / "video.png", full_page=True)


def test_a_full_queue_is_said_on_the_page(page: Any, tmp_path: Path) -> None:
    full = {"detail": "Queue is full. Max size is 20 and size is 20."}
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    page.reload()
    page.click("#example")
    page.wait_for_selector("text=/application is (currently|too) busy/i")
    page.screenshot(path=tmp_path / "busy.png", full_page=True)
    page.unroute("**/queue/join*")


def test_nothing_was_asked_of_another_machine(page: Any, log: Path) -> None:
    assert requests_of(page, local=True)
    assert requests_of(page, local=False) == []
    assert "leaves the machine" not in log.read_text()
    assert "Traceback" not in log.read_text()
