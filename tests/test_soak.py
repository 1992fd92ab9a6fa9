"""What shows only after thousands of predictions, or with several at once: memory, equality, whole files.

`make soak` runs 20,000 predictions in a row; without CONDSEG_SOAK it is a tenth of that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import Predictor
from tests.fuzz.small_models import make_onnx

pytestmark = pytest.mark.slow

PREDICTIONS = int(os.environ.get("CONDSEG_SOAK", "2000"))
OF_THE_BUNDLED = max(100, PREDICTIONS // 100)
MOST_MEGABYTES = 20
THREADS, PROCESSES = 8, 3

# One call after another, over images of many sizes and kinds, as a service gets them.
SOAK = """
import gc, io, os, sys
import numpy as np
from PIL import Image
from condseg_sdk import Predictor

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

rng = np.random.default_rng(0)
sources = []
for number in range(20):
    pixels = rng.integers(0, 255, (*rng.integers(40, 400, 2), 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, ("PNG", "JPEG")[number % 2])
    sources += [pixels, data.getvalue()]
count = int(sys.argv[2])
predictor = Predictor.from_pretrained(sys.argv[1], device="cpu")
for number in range(count):
    predictor(sources[number % len(sources)]).polygons()
    if number == count // 10:
        gc.collect()
        before = resident()
gc.collect()
print(resident() - before)
"""


@pytest.fixture(scope="module")
def opened(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path or name of a model for each of the tests' words."""
    folder = tmp_path_factory.mktemp("soak")

    def path(model: str) -> str:
        match model:
            case "PyTorch":
                return str(checkpoint)
            case "ONNX":
                return str(make_onnx(folder / "small.onnx"))
            case "bundled PyTorch":
                return "condseg-lite-polyp"
        file = folder / "bundled.onnx"
        if not file.exists():
            Predictor.from_pretrained("condseg-lite-polyp", device="cpu").export_onnx(file)
        return str(file)

    return path


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("PyTorch", PREDICTIONS),
        ("ONNX", PREDICTIONS),
        ("bundled PyTorch", OF_THE_BUNDLED),
        ("bundled ONNX", OF_THE_BUNDLED),
    ],
)
def test_memory_does_not_grow_with_the_number_of_predictions(
    opened: Callable[[str], str], model: str, count: int
) -> None:
    command = [sys.executable, "-c", SOAK, opened(model), str(count)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < MOST_MEGABYTES


@pytest.mark.parametrize(
    ("model", "each"), [("PyTorch", 50), ("ONNX", 50), ("bundled PyTorch", 5), ("bundled ONNX", 5)]
)
def test_eight_threads_with_one_predictor_predict_as_one_thread(
    opened: Callable[[str], str], model: str, each: int
) -> None:
    predictor = Predictor.from_pretrained(opened(model), device="cpu")
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (*rng.integers(40, 200, 2), 3), np.uint8) for _ in range(10)]
    alone = [predictor(image) for image in images]
    numbers = [number % len(images) for number in range(each * THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda number: predictor(images[number]), numbers))
    for number, seg in zip(numbers, together, strict=True):
        expected = alone[number]
        np.testing.assert_allclose(seg.probability, expected.probability, rtol=0, atol=1e-6)
        # A mask may differ only where the probability lies on the threshold.
        clear = np.abs(expected.probability - expected.threshold) > 1e-5
        assert (seg.mask == expected.mask)[clear].all()


def test_three_processes_in_one_folder_write_the_files_of_one(checkpoint: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    (tmp_path / "images").mkdir()
    for number in range(40):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")

    def start(out: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "condseg_sdk.cli",
            "predict",
            str(tmp_path / "images"),
            "--model",
            str(checkpoint),
        ]
        command += ["--out", str(tmp_path / out), "--save", "mask,overlay,json", "--device", "cpu"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    printed, _ = (alone := start("alone")).communicate()
    assert alone.returncode == 0, printed
    for process in [start("together") for _ in range(PROCESSES)]:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    names = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == names
    assert sum(name.endswith(".png") for name in names) == 80
    for path in (tmp_path / "together").glob("[!.]*"):
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            pixels, expected = (
                np.asarray(Image.open(folder / path.name)) for folder in (path.parent, tmp_path / "alone")
            )
            assert pixels.shape == expected.shape
            assert (pixels != expected).mean() < 1e-3
