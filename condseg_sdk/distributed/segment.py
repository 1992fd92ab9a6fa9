"""Segments batches of images in an actor of Ray Data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CondsegError, ImageError
from condseg_sdk.predictor import Predictor
from condseg_sdk.runtimes.options import ONNX_DEVICES, OnnxOptions, RuntimeName, TorchOptions
from condseg_sdk.segmentation import SaveKind, Segmentation
from condseg_sdk.weights.hub import is_onnx

__all__ = ["Batch", "SegmentImages", "column", "open_predictor", "prediction_of"]

Batch: TypeAlias = dict[str, NDArray[np.generic]]
"""A batch of Ray Data in its format "numpy": columns by their names."""


class SegmentImages:
    """Segments batches of images: a class for `map_batches` of Ray Data, which makes one object in each actor.

    A batch has a column "path". It comes back with two more for each image: the columns of `kinds` contain the bytes of
    the files that `Segmentation.encode` makes, None where the image failed; "error" contains the line of the error,
    None where there is none. Paths must be readable on the machine of the actor.

    Args:
        model: Model, as `Predictor.from_pretrained` takes it.
        kinds: Kinds of files, as `Segmentation.encode` takes them, each a column.
        device: Device of the actor, as `Predictor.from_pretrained` takes it.
        runtime: "torch" or "onnx". Default: as in `Predictor.from_pretrained`.
        threads: Number of CPU threads of the network. Default: `num_cpus` of the actor for PyTorch, all cores of the
            machine for ONNX Runtime; give the same number as `num_cpus`.
        threshold: Probability in (0, 1) from which a pixel belongs to the mask. Default: the checkpoint's own.
        min_score: Lowest score of an image, in (0, 1), below which its mask is empty. Default: no limit.
        batch_size: Number of images that the network processes at once.
        tta: Whether to average over four flips of the image.
        tile: Side in pixels of the tiles that each image is cut into. Default: no tiles.
        bits: Number of bits in use of images with 16-bit values. Default: the checkpoint's, otherwise found from each
            batch alone.

    Raises:
        CondsegError: The model cannot be opened; see `Predictor.from_pretrained`.

    Example:
        >>> segment = SegmentImages("condseg-lite-polyp", threads=1)
        >>> batch = segment({"path": np.array(["frame.jpg", "missing.jpg"], object)})
        >>> batch["mask"][0][1:4], batch["error"][0]
        (b'PNG', None)
        >>> batch["mask"][1], batch["error"][1].startswith("missing.jpg")
        (None, True)
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        kinds: Sequence[SaveKind] = ("mask",),
        device: str = "auto",
        runtime: RuntimeName | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        min_score: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        bits: int | None = None,
    ) -> None:
        self.kinds = tuple(kinds)
        self.predictor = open_predictor(model, device, runtime, threads)
        self.threshold = self.predictor.threshold if threshold is None else threshold
        self.min_score = min_score
        self.bits = self.predictor.preprocessing.bits if bits is None else bits
        self.batch_size, self.tta, self.tile = batch_size, tta, tile

    def __call__(self, batch: Batch) -> Batch:
        """Segment a batch.

        Args:
            batch: Columns of the batch; "path" contains the paths.

        Returns:
            The batch with the columns of `kinds` and "error".
        """
        found = self.segment([str(path) for path in batch["path"]])
        columns: dict[str, list[object]] = {name: [] for name in (*self.kinds, "error")}
        for path in batch["path"]:
            files: dict[SaveKind, bytes] = {}
            error = None
            try:
                files = {kind: prediction_of(found[str(path)]).encode(kind) for kind in self.kinds}
            except CondsegError as reason:
                error = str(reason)
            for kind in self.kinds:
                columns[kind].append(files.get(kind))
            columns["error"].append(error)
        return {**batch, **{name: column(values) for name, values in columns.items()}}

    def segment(self, paths: Sequence[str]) -> dict[str, Segmentation | CondsegError]:
        """Segment images.

        Args:
            paths: Paths of the images.

        Returns:
            The prediction, or the error, of each path.
        """
        found: dict[str, Segmentation | CondsegError] = {}
        predictions = self.predictor.stream(
            list(dict.fromkeys(paths)),
            threshold=self.threshold,
            min_score=self.min_score,
            batch_size=self.batch_size,
            tta=self.tta,
            tile=self.tile,
            bits=self.bits,
            on_error=lambda path, error: found.update({str(path): error}),
        )
        for seg in predictions:
            if isinstance(seg.source, (str, os.PathLike)):
                found[os.fspath(seg.source)] = seg
        several = "has several frames; use condseg predict without --ray for it"
        return {path: found.get(path) or ImageError(f"{path} {several}", path=path) for path in paths}


def open_predictor(
    model: str | os.PathLike[str], device: str, runtime: RuntimeName | None, threads: int | None
) -> Predictor:
    """Open the model with a number of threads."""
    if threads is None:
        return Predictor.from_pretrained(model, device=device, runtime=runtime)
    if runtime == "onnx" or (runtime is None and (is_onnx(model) or device in ONNX_DEVICES)):
        return Predictor.from_pretrained(model, device=device, runtime=OnnxOptions(threads=threads))
    import torch

    torch.set_num_threads(threads)
    return Predictor.from_pretrained(model, device=device, runtime=TorchOptions())


def prediction_of(found: Segmentation | CondsegError) -> Segmentation:
    """Return a prediction, or raise the error that is there instead."""
    if isinstance(found, CondsegError):
        raise found
    return found


def column(values: Sequence[object]) -> NDArray[np.generic]:
    """Make a column of any objects."""
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects
