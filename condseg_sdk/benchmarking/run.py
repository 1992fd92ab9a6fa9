"""The whole benchmark of a checkpoint: exports, inputs, reference, then all subjects at each batch and size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.benchmarking.flops import matmul_subject
from condseg_sdk.benchmarking.measure import Row, Setting, measure
from condseg_sdk.benchmarking.subjects import Subject, onnx_subjects, run_trained_form, torch_subjects
from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.export.precisions import PRECISIONS
from condseg_sdk.opencv import cv2
from condseg_sdk.predictor import Predictor
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.providers import find_provider
from condseg_sdk.words import pluralize

COMPARED = 8  # images
DEVICES = ("cpu", "openvino", "cuda", "tensorrt")
Baselines = Callable[[int, int], Sequence[Subject]]
"""Returns the subjects to put first, for a batch and a size."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """The settings of a benchmark.

    Args:
        batches: Numbers of images in one call.
        sizes: Heights and widths in pixels, multiples of 32. The default is the checkpoint's.
        images: Images uint8 (H, W, 3), RGB, like those to be segmented, for the comparison and for calibration. Without
            any, synthetic images are compared and int8 is left out.
        threads: Number of threads of PyTorch and ONNX Runtime; None for their defaults.
        seconds: Seconds for each batch and size, beyond the minimum number of repetitions.
        compiled: Where to measure `torch.compile`, which takes minutes: "all", "first" (batch and size) or "none".
        devices: Devices to measure, of "cpu", "openvino", "cuda" and "tensorrt".

    Raises:
        OptionError: A number is out of range, or a device is unknown.
    """

    batches: tuple[int, ...] = (1, 8)
    sizes: tuple[int, ...] = ()
    images: Sequence[NDArray[np.uint8]] = ()
    threads: int | None = None
    seconds: float = 30.0
    compiled: str = "none"
    devices: tuple[str, ...] = DEVICES

    def __post_init__(self) -> None:
        for batch in self.batches:
            if batch < 1:
                raise OptionError(f"batch={batch!r} must be at least 1")
        for size in self.sizes:
            if size < 32 or size % 32:
                raise OptionError(f"size={size!r} must be a multiple of 32, so that no network has to pad it")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"threads={self.threads!r} must be at least 1")
        if not self.seconds >= 0:
            raise OptionError(f"seconds={self.seconds!r} must be 0 or more")
        if self.compiled not in ("all", "first", "none"):
            raise OptionError(f"compiled={self.compiled!r} must be 'all', 'first' or 'none'")
        for device in self.devices or ("",):
            if device not in DEVICES:
                raise OptionError(f"device={device!r} must be {', '.join(map(repr, DEVICES))}")


def benchmark(
    name: str,
    checkpoint: Path,
    config: BenchmarkConfig,
    *,
    work: Path,
    baselines: Baselines | None = None,
    finished: Callable[[list[Row]], object] | None = None,
    progress: Callable[[str], object],
) -> list[Row]:
    """Measure one checkpoint.

    Args:
        name: Name of the network in the tables.
        checkpoint: Folder of the checkpoint.
        config: Settings of the benchmark.
        work: An existing folder for the exported files.
        baselines: Returns further subjects to put first, so `speedup` refers to them.
        finished: Function that is called with all rows so far as soon as a row is measured, to save them.
        progress: Function that gets lines about the progress.
    """
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    files = export_all(predictor, config, work=work, progress=progress)
    own = predictor.preprocessing.size
    rows: list[Row] = []
    for size in config.sizes or (max(own),):
        inputs = network_inputs(predictor.preprocessing, size, config.images)
        progress(f"{name} at {size}x{size}: float32 PyTorch on {pluralize(len(inputs), 'image')}")
        reference = np.concatenate([run_trained_form(checkpoint)(image[None]) for image in inputs])
        for batch in config.batches:
            setting = Setting(name, batch, size, config.threads, predictor.threshold)
            compiled = config.compiled == "all" or (config.compiled == "first" and not rows)
            subjects = [
                *(baselines(batch, size) if baselines else ()),
                *torch_subjects(checkpoint, compiled=compiled),
                *onnx_subjects(files, threads=config.threads),
            ]
            chosen = {find_provider(device)[0].device for device in config.devices}
            subjects = [subject for subject in subjects if subject.device in chosen]
            save = None if finished is None else lambda new, before=tuple(rows): finished([*before, *new])
            rows += measure(
                subjects,
                setting,
                inputs,
                reference,
                budget=config.seconds,
                ceiling=matmul_subject(config.threads) if "cpu" in config.devices else None,
                finished=save,
                progress=lambda line, batch=batch, size=size: progress(f"{name} {batch}x{size}: {line}"),  # type: ignore[misc]
            )
            if finished:
                finished(rows)
    return rows


def export_all(
    predictor: Predictor, config: BenchmarkConfig, *, work: Path, progress: Callable[[str], object]
) -> dict[OnnxPrecision, Path | str]:
    """Export each precision to a file; return the reason instead where that is impossible."""
    files: dict[OnnxPrecision, Path | str] = {}
    for precision, spec in PRECISIONS.items():
        devices = set(spec.devices) & set(config.devices)
        if not devices:
            continue
        progress(f"exporting {precision}")
        options: dict[str, Any] = {"precision": precision, "verify": False}
        if config.sizes in ((), predictor.preprocessing.size[:1]) and not any(map(_gains_from_batches, devices)):
            options["dynamic"] = False  # as for runtime="onnx"; OpenVINO's int8 is less accurate with free sizes
        if spec.needs_calibration:
            if not config.images:
                files[precision] = f"{precision} needs calibration images: pass --images"
                continue
            options["calibration"] = list(config.images)
        try:
            files[precision] = predictor.export_onnx(work / f"{precision}.onnx", **options).path
        except CondsegError as error:
            files[precision] = str(error)
    return files


def _gains_from_batches(device: str) -> bool:
    return find_provider(device)[0].batches


def network_inputs(preprocessing: Preprocessing, size: int, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Prepare the first `COMPARED` images, or as many synthetic ones, as network input of one size."""
    prepared = replace(preprocessing, size=(size, size))
    return np.stack([prepared(image) for image in (images or synthetic_images())[:COMPARED]])


def synthetic_images() -> list[NDArray[np.uint8]]:
    """Make soft blobs of color with a little noise, always the same."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(COMPARED):
        blobs = cv2.resize(rng.uniform(0, 255, (6, 8, 3)), (640, 480), interpolation=cv2.INTER_CUBIC)
        images.append(np.clip(blobs + rng.normal(0, 4, blobs.shape), 0, 255).astype(np.uint8))
    return images
