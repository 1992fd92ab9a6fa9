"""The static page of examples/browser in Chromium: its masks are Python's, and nothing leaves the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import Predictor
from condseg_sdk.images.load import load_image
from tests.helpers.browser import evaluate, open_page, requests_of, running

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "examples" / "browser"
EXAMPLE = ROOT / "examples" / "images" / "synthetic_0.jpg"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (PAGE / "ort").is_dir(), reason="needs ONNX Runtime Web: npm ci in examples/browser"),
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("condseg-lite-polyp", device="cpu")


@pytest.fixture(scope="module")
def address(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a copy of the page with its model."""
    folder = tmp_path_factory.mktemp("page") / "browser"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "*.onnx"))
    predictor.export_onnx(folder / "model.onnx", preprocessing=True, verify=False)
    with running([str(folder / "serve.py"), "0"], folder / "log.txt") as address:
        yield address


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with open_page() as page:
        page.goto(f"{address}/index.html?device=wasm")
        page.wait_for_selector("#status >> text=/^Ready/")
        yield page


def segmented(page: Any, name: str) -> None:
    page.wait_for_selector(f"#status >> text=/^{name}: .* segmented in/")


def downloaded_mask(page: Any, path: Path) -> Any:
    with page.expect_download() as waiting:
        page.click("#download-mask")
    waiting.value.save_as(path)
    return load_image(path)[..., 0] > 127


def test_webassembly_runs_in_threads_where_the_server_isolates_the_page(page: Any) -> None:
    assert evaluate(page, "crossOriginIsolated")
    threads = min(4, evaluate(page, "navigator.hardwareConcurrency"))
    assert f"WebAssembly, {threads} thread" in page.inner_text("#runtime")


def test_the_mask_of_the_example_is_that_of_python(page: Any, predictor: Predictor, tmp_path: Path) -> None:
    page.click("#example")
    segmented(page, "example.jpg")
    page.screenshot(path=tmp_path / "example.png", full_page=True)
    assert page.input_value("#threshold") == str(predictor.threshold)
    expected = predictor(EXAMPLE).mask
    assert expected.any()
    difference = np.mean(downloaded_mask(page, tmp_path / "mask.png") != expected)
    print(f"{difference:.5%} of the pixels differ")
    assert difference < 0.005


def test_another_threshold_changes_the_mask_of_a_file_that_was_chosen(
    page: Any, predictor: Predictor, tmp_path: Path
) -> None:
    with Image.open(EXAMPLE) as image:
        image.transpose(Image.Transpose.ROTATE_90).resize((300, 401)).save(tmp_path / "turned.png")
    page.set_input_files("#file", tmp_path / "turned.png")
    segmented(page, "turned.png")
    first = page.inner_text("#result")
    page.fill("#threshold", "0.05")
    assert page.inner_text("#result") != first
    expected = predictor(tmp_path / "turned.png", threshold=0.05).mask
    assert np.mean(downloaded_mask(page, tmp_path / "mask.png") != expected) < 0.005


def test_a_file_that_is_no_image_gives_a_message_and_removes_the_last_mask(page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#status.error")
    assert "notes.png is not an image that this browser can read" in page.inner_text("#status")
    assert page.locator("#overlay").is_hidden()
    assert page.locator("#download").is_disabled()
    page.screenshot(path=tmp_path / "message.png", full_page=True)


def test_nothing_leaves_the_page(page: Any, address: str) -> None:
    assert requests_of(page, local=True)
    assert requests_of(page, local=False) == []
    assert all(url.startswith((address, "blob:", "data:")) for url in page.asked)
    refused = "fetch('https://example.com/').then(() => 'sent', () => 'refused')"
    assert evaluate(page, refused) == "refused"  # by the page's Content Security Policy


def test_without_isolation_the_page_runs_in_one_thread(page: Any, address: str) -> None:
    other = page.context.new_page()
    other.route("**/index.html*", _without_headers)
    other.goto(f"{address}/index.html?device=wasm")
    other.wait_for_selector("#status >> text=/^Ready/")
    assert "WebAssembly, 1 thread: the server does not send the headers" in other.inner_text("#runtime")
    other.close()


def _without_headers(route: Any) -> None:
    route.fulfill(body=route.fetch().body(), content_type="text/html")
