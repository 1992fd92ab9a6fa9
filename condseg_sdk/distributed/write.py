"""Writes the files of images in an actor of Ray Data, unless an earlier call has written the same files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from condseg_sdk.checksums import sha256_of
from condseg_sdk.distributed.segment import Batch, SegmentImages, column, prediction_of
from condseg_sdk.errors import CheckpointError, CondsegError, ImageError
from condseg_sdk.labels.write import write_files
from condseg_sdk.origin import JobDict
from condseg_sdk.provenance import check_replaced, read_statement
from condseg_sdk.segmentation import SaveKind, Segmentation

__all__ = ["ImageResult", "OutputFiles", "Status", "WriteFiles", "row_of"]

Status = Literal["done", "unchanged", "failed"]


@dataclass(frozen=True)
class OutputFiles:
    """Where the files of an image are written.

    Attributes:
        source: Path of the image, as outputs name it.
        files: Path of each kind of file: "mask", "overlay", "probability", "uncertainty" or "json".
    """

    source: Path
    files: Mapping[SaveKind, Path]


@dataclass(frozen=True)
class ImageResult:
    """What became of an image.

    Attributes:
        source: Path of the image.
        status: "done"; "unchanged" if an earlier call has written the same files; or "failed".
        has_region: Whether the mask has a pixel; False unless `status` is "done".
        error: The line of the error; None unless `status` is "failed".
    """

    source: Path
    status: Status
    has_region: bool
    error: str | None


class WriteFiles:
    """The actor of `segment_files`: writes the files of each image, unless they are there."""

    def __init__(self, *, device: str, threads: int, overwrite: bool, **options: object) -> None:
        self.segmenter = SegmentImages(device=device, threads=threads, **options)  # type: ignore[arg-type]
        self.overwrite = overwrite

    def __call__(self, batch: Batch) -> Batch:
        """Write the files of a batch of rows as `row_of` makes them, and return the result of each."""
        items = _items(batch)
        results: dict[int, ImageResult] = {}
        jobs: dict[int, JobDict] = {}
        for number, item in items.items():
            try:
                job = self._job(item.source)
                if self._is_done(item, job):
                    results[number] = ImageResult(item.source, "unchanged", False, None)
                else:
                    check_replaced(item.files.values(), overwrite=self.overwrite)
                    jobs[number] = job
            except CondsegError as error:
                results[number] = ImageResult(item.source, "failed", False, str(error))
        found = self.segmenter.segment([str(items[number].source) for number in jobs]) if jobs else {}
        for number, job in jobs.items():
            item, name = items[number], str(batch["path"][[*items].index(number)])
            results[number] = self._write(item, name, found[str(item.source)], job)
        ordered = [results[number] for number in items]
        return {
            "number": batch["number"],
            "path": batch["path"],
            "status": column([result.status for result in ordered]),
            "has_region": np.array([result.has_region for result in ordered]),
            "error": column([result.error or "" for result in ordered]),
        }

    def _job(self, source: Path) -> JobDict:
        try:
            digest = sha256_of(source)
        except CheckpointError as error:
            raise ImageError(str(error), path=source) from error
        segmenter = self.segmenter
        return {"source_sha256": digest, "tta": segmenter.tta, "tile": segmenter.tile, "bits": segmenter.bits}

    def _is_done(self, item: OutputFiles, job: JobDict) -> bool:
        model = self.segmenter.predictor.model_sha256
        limits = {"threshold": self.segmenter.threshold, "min_score": self.segmenter.min_score}
        wanted = {**limits, "model_sha256": model, "job": job}
        stated = (read_statement(path) for path in item.files.values())
        return model is not None and all({key: found.get(key) for key in wanted} == wanted for found in stated)

    @staticmethod
    def _write(item: OutputFiles, name: str, found: Segmentation | CondsegError, job: JobDict) -> ImageResult:
        try:
            seg = prediction_of(found)
            if seg.origin is not None:
                seg = replace(seg, name=name, origin=replace(seg.origin, job=job))
            write_files({path: seg.encode(kind) for kind, path in item.files.items()})
        except CondsegError as error:
            return ImageResult(item.source, "failed", False, str(error))
        return ImageResult(item.source, "done", not seg.is_empty, None)


def row_of(number: int, item: OutputFiles) -> dict[str, object]:
    """Make the row of Ray Data for an image, with a column for each kind of file."""
    # Workers have another current folder; outputs name the image by its path as it was given.
    row = {"number": number, "path": str(item.source), "place": str(item.source.absolute())}
    return row | {f"file_{kind}": str(path.absolute()) for kind, path in item.files.items()}


def _items(batch: Batch) -> dict[int, OutputFiles]:
    """Return the images of a batch, with absolute paths, by their numbers."""
    kinds = [cast("SaveKind", name.removeprefix("file_")) for name in batch if name.startswith("file_")]
    items = {}
    for place, number in enumerate(batch["number"]):
        files = {kind: Path(str(batch[f"file_{kind}"][place])) for kind in kinds}
        items[int(number)] = OutputFiles(Path(str(batch["place"][place])), files)
    return items
