"""What tests and the examples of docstrings and pages share: a small checkpoint, and a folder to run examples in."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from condseg_sdk import ConDSeg, Predictor, Preprocessing
from condseg_sdk.opencv import cv2
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint
from tests.helpers.datasets import make_set, picture, region, save
from tests.helpers.dicom import ULTRASOUND_MULTI_FRAME, make_dataset, save_dataset
from tests.helpers.networks import TINY

collect_ignore_glob = ["condseg_sdk/__pyinstaller/*"]


def pytest_collection_finish() -> None:
    """Hide the objects of imported libraries from the garbage collector, an eighth of the time otherwise."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder of a tiny network with random weights."""
    torch.manual_seed(0)
    network = ConDSeg(**TINY)
    with torch.no_grad():  # spread the predictions, so that masks are neither empty nor full
        network.output.logits.weight.mul_(100)
    config = CheckpointConfig(
        network=TINY,
        preprocessing=Preprocessing((64, 64), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3),
        threshold=0.4,
        provenance={},
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, network, config)
    return folder


@pytest.fixture(scope="session")
def example_files(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A folder with everything that the examples use.

    A folder with a checkpoint in it comes before a known name or one of the Hub, so that no example needs a network.
    """
    folder = tmp_path_factory.mktemp("examples")
    for name in ("condseg-lite-polyp", "org/name", "runs/mine/checkpoint", "runs/finished/checkpoint"):
        shutil.copytree(checkpoint, folder / name)
    (folder / "runs" / "finished" / "settings.json").write_text("{}")
    names = [f"{patient}_{frame}" for patient in ("patient1", "patient2", "patient3") for frame in range(4)]
    make_set(folder / "my_dataset", names)
    for split in ("train", "val", "test"):
        make_set(folder / "my_test_set" / split, [f"{split}{i}" for i in range(2)])
    for name in names[::2]:
        save(folder / "frames" / f"{name}.jpg", picture(name, (90, 120)))
        save(folder / "annotations" / f"{name}.png", region((90, 120)))
    save(folder / "frame.jpg", picture("frame", (90, 120)))
    save_dataset(make_dataset(picture("scan", (90, 120)), "RGB", PixelSpacing=[0.5, 0.5]), folder / "scan.dcm")
    cine = np.stack([picture(f"cine{i}", (90, 120)) for i in range(3)])
    save_dataset(make_dataset(cine, "RGB", sop_class=ULTRASOUND_MULTI_FRAME), folder / "cine.dcm")
    save(folder / "new.jpg", picture("new", (90, 120)))
    save(folder / "slide.png", picture("slide", (300, 400)))
    writer = cv2.VideoWriter(str(folder / "colonoscopy.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (120, 90))
    for i in range(3):
        writer.write(picture(f"video{i}", (90, 120)))
    writer.release()
    (folder / "colonoscopy.avi").rename(folder / "colonoscopy.mp4")
    return folder


def copy_or_link(source: str, target: str) -> None:
    """Copy a file, but link weights, which are most of the bytes: nothing writes into a file of weights."""
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def example_predictor(example_files: Path) -> Predictor:
    """The predictor that examples use, opened once for all of them."""
    return Predictor.from_pretrained(example_files / "condseg-lite-polyp", device="cpu")


@pytest.fixture
def example_names(
    example_files: Path,
    example_predictor: Predictor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    """The names that examples use without making them; the current folder is a copy of `example_files`."""
    del capfd  # what examples print is not shown
    shutil.copytree(example_files, tmp_path, dirs_exist_ok=True, copy_function=copy_or_link)
    monkeypatch.chdir(tmp_path)
    return {
        "Path": Path,
        "Predictor": Predictor,
        "Preprocessing": Preprocessing,
        "np": np,
        "predictor": example_predictor,
        "frame": np.asarray(Image.open("frame.jpg")),
        "path": Path("frame.jpg"),
        "paths": sorted(Path("frames").iterdir()),
    }


@pytest.fixture(autouse=True)
def _run_doctests_beside_example_files(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        names = request.getfixturevalue("example_names")
        request.getfixturevalue("doctest_namespace").update({name: names[name] for name in ("np", "Path", "predictor")})
