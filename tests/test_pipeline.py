"""The pipeline on a runtime that can be watched: order, overlap, errors, early stop, memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from condseg_sdk import CheckpointError, CondsegError, ImageError, Preprocessing, Segmentation
from condseg_sdk.images.load import read_image
from condseg_sdk.pipeline import Pipeline, Request, Source
from condseg_sdk.runtimes.base import Logits

SIZE = 32


class Watched:
    """A runtime whose prediction is the mean of the image, and that records its calls."""

    providers = ("watched",)

    def __init__(self, seconds: float = 0, device: str = "cuda:0") -> None:
        self.seconds = seconds
        self.device = device
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def check_branch_uncertainty(self) -> None: ...

    def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
        self.batches.append(len(batch))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        maps = np.repeat(batch.mean((1, 2, 3)), SIZE * SIZE).reshape(-1, SIZE, SIZE).astype(np.float32)
        return Logits(maps, maps if branch_uncertainty else None)


def pipeline(runtime: Watched, on_error: Any = None, batch_size: int = 4, tile: int | None = None) -> Pipeline:
    request = Request(
        threshold=0.5, batch_size=batch_size, tta=False, tile=tile, branch_uncertainty=False, color_order="rgb"
    )
    return Pipeline(runtime, Preprocessing((SIZE, SIZE), scale=1.0), request, on_error=on_error)


def frames(count: int, start: int = 0) -> Iterator[Source]:
    for value in range(start, start + count):
        yield Source(np.full((40, 50, 3), value, np.uint8), str(value))


def values(predictions: Iterator[Segmentation]) -> list[int]:
    return [round(float(seg.logits.mean())) for seg in predictions]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("tile", [None, 32])
def test_predictions_come_in_order_in_batches_from_one_thread(tile: int | None, device: str) -> None:
    runtime = Watched(device=device)
    assert values(pipeline(runtime, tile=tile).predict_all(frames(10))) == list(range(10))
    assert len(runtime.threads) == 1
    assert (runtime.threads == {threading.get_ident()}) == (device == "cpu")
    if tile is None:
        assert runtime.batches == [4, 4, 2]


def test_on_a_cpu_no_image_is_started_while_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    running = threading.Event()
    begun: list[bool] = []

    class Exclusive(Watched):
        def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
            running.set()
            time.sleep(0.05)  # time enough for a decoder that does not wait
            running.clear()
            return super().run(batch, branch_uncertainty=branch_uncertainty)

    def watched(*arguments: Any, **options: Any) -> Any:
        begun.append(running.is_set())
        return read_image(*arguments, **options)

    monkeypatch.setattr("condseg_sdk.pipeline.read_image", watched)
    assert values(pipeline(Exclusive(device="cpu")).predict_all(frames(40))) == list(range(40))
    # One that had just passed the gate when it closed may be counted for each batch.
    assert sum(begun) <= 10 < len(begun)


def test_one_image_is_segmented_in_the_callers_thread() -> None:
    runtime = Watched()
    seg = pipeline(runtime).predict_one(next(frames(1, start=7)))
    assert round(float(seg.logits.mean())) == 7
    assert runtime.threads == {threading.get_ident()}


def test_nan_is_an_error_that_names_model_and_image() -> None:
    class Damaged(Watched):
        def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
            return Logits(np.full((len(batch), SIZE, SIZE), np.nan, np.float32), None)

    named = Source(np.zeros((40, 50, 3), np.uint8), "frame.png")
    with pytest.raises(
        CheckpointError, match=r"the model predicted NaN or infinity for frame\.png; its weights are damaged"
    ):
        pipeline(Damaged()).predict_one(named)


def test_an_error_comes_after_the_predictions_before_it() -> None:
    sources = [*frames(6), Source(b"no image", "bad"), *frames(3, start=6)]
    runtime = Watched()
    predictions = pipeline(runtime).predict_all(iter(sources))
    assert [next(predictions).name for _ in range(6)] == [str(n) for n in range(6)]
    with pytest.raises(ImageError):
        next(predictions)
    assert sum(runtime.batches) == 6  # nothing after it is computed

    seen: list[Any] = []

    def note(source: object, error: CondsegError) -> None:
        seen.append((source, type(error)))

    for seg in pipeline(Watched(), on_error=note).predict_all(iter(sources)):
        seen.append(seg.name)  # noqa: PERF401 - `note` appends in between
    assert seen == [*"012345", (b"no image", ImageError), *"678"]


def test_an_error_of_the_sources_iterator_comes_after_its_predictions() -> None:
    def broken() -> Iterator[Source]:
        yield from frames(6)
        raise ImageError("the video ends here")

    predictions = pipeline(Watched(), on_error=lambda *_: None).predict_all(broken())
    assert [next(predictions).name for _ in range(6)] == [str(n) for n in range(6)]
    with pytest.raises(ImageError, match="the video ends here"):
        next(predictions)


def test_only_bad_images_give_no_predictions() -> None:
    errors: list[CondsegError] = []
    bad = (Source(b"no", str(n)) for n in range(9))
    assert list(pipeline(Watched(), on_error=lambda _, error: errors.append(error)).predict_all(bad)) == []
    assert len(errors) == 9


def test_stopping_early_ends_the_threads_and_an_endless_source() -> None:
    def endless() -> Iterator[Source]:
        while True:
            yield from frames(100)

    before = threading.active_count()
    runtime = Watched()
    predictions = pipeline(runtime).predict_all(endless())
    assert values(next(predictions) for _ in range(5)) == [0, 1, 2, 3, 4]
    assert threading.active_count() > before
    predictions.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert sum(runtime.batches) <= 5 * 4


def test_the_network_works_while_the_caller_uses_predictions() -> None:
    started = [threading.Event() for _ in range(5)]

    class Announcing(Watched):
        def run(self, batch: NDArray[np.float32], *, branch_uncertainty: bool) -> Logits:
            started[len(self.batches)].set()
            return super().run(batch, branch_uncertainty=branch_uncertainty)

    for number, _ in enumerate(pipeline(Announcing()).predict_all(frames(20))):
        following = min(number // 4 + 1, 4)
        assert started[following].wait(timeout=30)  # begins although the caller keeps this prediction


MEMORY = """
import sys
import numpy as np
from condseg_sdk import Predictor

def resident():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024

predictor = Predictor.from_pretrained(sys.argv[1], device="cpu")
rng = np.random.default_rng(0)
images = (rng.integers(0, 255, (480, 640, 3), np.uint8) for _ in range(2000))
for number, seg in enumerate(predictor.stream(images)):
    seg.area
    if number == 200:
        before = resident()
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_over_2000_images(checkpoint: Path) -> None:
    """One frame has 0.9 MB: keeping frames, inputs or maps would show as hundreds of MB."""
    result = subprocess.run([sys.executable, "-c", MEMORY, str(checkpoint)], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 30
