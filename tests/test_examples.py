"""The examples: the synthetic scenes of the demo, and the labeling loop on a tiny set."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from condseg_sdk import Predictor
from tests.helpers.datasets import make_set, picture, save

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    return load("synthetic_endoscopy")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_seed_gives_the_same_scene_twice_and_another_seed_another(synthetic: ModuleType) -> None:
    once, again, other = (synthetic.render(seed, size=(60, 75)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once.image, again.image)
    np.testing.assert_array_equal(once.mask, again.mask)
    assert (once.image != other.image).mean() > 0.5


@pytest.mark.parametrize("seed", [0, 12, 16])
def test_scenes_show_a_polyp_inside_the_aperture(synthetic: ModuleType, seed: int) -> None:
    scene = synthetic.render(seed, size=(96, 120))
    assert scene.image.shape == (96, 120, 3)
    assert scene.image.dtype == np.uint8
    assert scene.mask.shape == (96, 120)
    assert scene.mask.dtype == bool
    assert 0.02 < scene.mask.mean() < 0.3
    corner = (slice(0, 6), slice(0, 6))
    assert scene.image[corner].max() == 0
    assert not scene.mask[corner].any()


def test_the_mask_is_one_piece_and_larger_pictures_agree_with_it(synthetic: ModuleType) -> None:
    small, large = synthetic.render(0, size=(96, 120)), synthetic.render(0, size=(192, 240))
    assert cv2.connectedComponents(small.mask.astype(np.uint8))[0] == 2
    assert abs(small.mask.mean() - large.mask.mean()) < 0.005


@pytest.mark.slow
def test_the_committed_scene_is_what_the_renderer_makes(synthetic: ModuleType) -> None:
    with Image.open(EXAMPLES / "images" / "synthetic_0.jpg") as image:
        committed = np.asarray(image).astype(int)
    # JPEG costs a level or two; libraries of other versions may round a few pixels otherwise.
    difference = np.abs(committed - synthetic.render(0).image)
    assert difference.mean() < 3


def test_the_labeling_loop_corrects_the_most_uncertain_images_and_trains_on_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    loop = load("labeling_loop")
    make_set(tmp_path / "set", [f"p{number}" for number in range(8)])
    images, work = tmp_path / "set/images", tmp_path / "work"
    loop.prelabel(images, work, str(checkpoint), "polyp")
    assert len(list((work / "labelme").iterdir())) == 8
    first = loop.most_uncertain(work, 6)
    for name in first:  # what a person would draw
        file = (work / "labelme" / name).with_suffix(".json")
        corrected = json.loads(file.read_text())
        box = [[5.0, 5.0], [15.0, 5.0], [15.0, 15.0], [5.0, 15.0]]
        corrected["shapes"] = [{"label": "polyp", "points": box, "shape_type": "polygon"}]
        file.write_text(json.dumps(corrected))
    found = loop.train(images, work, str(checkpoint), 6, epochs=1, image_size=64, report=False, progress=False)
    assert (found / "model.safetensors").is_file()


def test_onnx_in_20_lines_gives_the_mask_of_the_predictor(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    predictor.export_onnx(tmp_path / "model.onnx", preprocessing=True, verify=False)
    source, target = tmp_path / "frame.png", tmp_path / "mask.png"
    save(source, picture("frame", (64, 64)))  # the network's size: nothing is resized
    monkeypatch.setattr(sys, "argv", ["onnx_20_lines.py", str(tmp_path / "model.onnx"), str(source), str(target)])
    load("onnx_20_lines")
    code = (EXAMPLES / "onnx_20_lines.py").read_text().partition('"""\n\n')[2]
    assert len(code.split("\n")) <= 22
    assert "condseg_sdk" not in code
    with Image.open(target) as mask:
        assert np.mean((np.asarray(mask) > 0) != predictor(source).mask) < 0.005


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Iterator[TestClient]:
    example = load("fastapi_service")
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    with TestClient(example.make_app(predictor, max_bytes=50_000, max_pixels=10_000)) as client:
        yield client


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture("frame", (height, width))).save(file, format="PNG")
    return file.getvalue()


def test_the_service_returns_masks_under_50_requests_at_once(service: TestClient) -> None:
    assert service.get("/health").json()["status"] == "ok"
    image = png(20, 24)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: service.post("/mask", content=image), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    masks = [np.asarray(Image.open(io.BytesIO(answer.content))) for answer in answers]
    assert masks[0].shape == (20, 24)
    for mask in masks:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"x" * 60_000, 413, "more than 50,000 bytes"),
        (png(101, 100), 413, "10,100 pixels"),
        (b"not an image", 422, "not an image"),
        (png(20, 24)[:-40], 422, "damaged"),
        (b"", 422, "not an image"),
    ],
)
def test_the_service_says_what_is_wrong_with_a_body(service: TestClient, body: bytes, status: int, words: str) -> None:
    answer = service.post("/mask", content=body)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_the_service_listens_on_this_machine_and_sends_the_crowd_away(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("fastapi_service")
    called: dict[str, object] = {}
    monkeypatch.setattr(example.uvicorn, "run", lambda _, **options: called.update(options))
    monkeypatch.setattr(sys, "argv", ["fastapi_service.py", "--model", str(checkpoint)])
    example.main()
    assert called["host"] == "127.0.0.1"
    app = example.make_app(Predictor.from_pretrained(checkpoint, device="cpu"), waiting=1)
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/mask", content=png(20, 24)).status_code, range(8)))
    assert 200 in answers
    assert {*answers} <= {200, 503}
