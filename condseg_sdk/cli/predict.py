"""`condseg predict`: segments images, folders and videos, and writes masks, overlays or outlines."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from condseg_sdk.cli import interrupts, predict_video
from condseg_sdk.cli.cluster import run_on_cluster
from condseg_sdk.cli.device import add_device
from condseg_sdk.cli.outputs import (
    RECORDING_ENDING,
    Outputs,
    add_overwrite,
    check_output_folder,
    is_video_name,
    plan_outputs,
)
from condseg_sdk.cli.run_log import RunLog
from condseg_sdk.cli.types import integer, real, reals
from condseg_sdk.cores import available_cores
from condseg_sdk.dicom_seg import Code, SegmentKind
from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.images.dicom import DicomFrame
from condseg_sdk.images.video import Video
from condseg_sdk.labels import FORMATS
from condseg_sdk.labels.base import LabeledImage
from condseg_sdk.labels.write import LabelWriter, write_files
from condseg_sdk.prefetch import prefetch_map, worker_threads
from condseg_sdk.runtimes.options import Precision, RuntimeName
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.segmentation import SaveKind, Segmentation

SAVERS = min(4, available_cores())
DEFAULT_MODEL = "condseg-lite-polyp"
OUT_HELP = "folder to write to, or a video such as overlay.mp4 for a video, camera or URL (default: %(default)s)"
ENDINGS = {
    "mask": "_mask.png",
    "overlay": "_overlay.png",
    "probability": "_probability.png",
    "uncertainty": "_uncertainty.png",
    "json": ".json",
    "dicom-seg": RECORDING_ENDING,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = "Segment images and save masks, overlays or outlines, each file named after its image."
    add = parser.add_argument
    add("source", nargs="+", help="image, folder, glob pattern, video, camera:0 or URL of a stream")
    add("--model", default=DEFAULT_MODEL, help="name, folder or org/name (default: %(default)s)")
    add("--out", type=Path, default=Path("condseg-out"), help=OUT_HELP)
    kinds = f"some of {','.join(ENDINGS)} and, as labels, {','.join(FORMATS)} (default: %(default)s)"
    add("--save", default="mask,overlay", metavar="KINDS", help=kinds)
    add("--label", default="foreground", help="class of all regions in labels (default: %(default)s)")
    spacing = "mm between pixels, or between rows and columns (0.2,0.25), for csv (default: the file's)"
    add("--spacing", type=reals, metavar="MM", help=spacing)
    add("--log", type=Path, metavar="FILE", help="append one line of JSON for each image (docs/outputs.md)")
    add("--segment-label", metavar="TEXT", help="name of the segment in dicom-seg")
    add("--segment-type", metavar="CODE,SCHEME,MEANING", help="coded type of the segment in dicom-seg (docs/dicom.md)")
    add("--threshold", type=real, help="probability in (0, 1) (default: the checkpoint's)")
    add(
        "--min-score",
        type=real,
        metavar="SCORE",
        help="lowest score of an image in (0, 1), below which its mask is empty (docs/accuracy.md; default: none)",
    )
    add("--batch-size", type=integer, default=8, help="images at once (default: %(default)s)")
    add("--tta", action="store_true", help="average over four flips: slower, a little more accurate")
    add("--tile", type=integer, metavar="PIXELS", help="cut large images into tiles of this side")
    add("--bits", type=integer, help="bits in use in 16-bit images, 8 to 16 (default: found from all images)")
    add(
        "--runtime",
        choices=get_args(RuntimeName),
        help="library that runs the network; onnx exports a checkpoint once (default: torch, onnx for an .onnx file)",
    )
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="precision of the arithmetic, where the device has several (default: float32)",
    )
    add(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with an image that cannot be read, or whose files cannot be written (default: %(default)s)",
    )
    add("--ray", metavar="ADDRESS", help="segment on a Ray cluster: local, auto or host:port (docs/scale_out.md)")
    add(
        "--ray-cpus",
        type=integer,
        default=1,
        metavar="N",
        help="CPUs of each worker with --ray (default: %(default)s)",
    )
    predict_video.add_video_options(parser)
    add_overwrite(parser)
    parser.set_defaults(defaults=argparse.Namespace(**{a.dest: a.default for a in parser._actions}))


@dataclass(frozen=True)
class _Image:
    """An image, or a frame, whose files are to be written.

    Attributes:
        source: File of the image, the video or the recording.
        base: Beginning of the paths of its files.
        seg: Its prediction.
        kinds: Kinds of its files.
    """

    source: Path
    base: Path
    seg: Segmentation
    kinds: list[SaveKind]


@dataclass(frozen=True)
class _Recording:
    """A DICOM file with several frames that gets one DICOM segmentation of all of them."""

    source: Path
    base: Path
    segs: list[Segmentation]


@dataclass
class _Work:
    """The work of a call and its state. Several threads append to the lists.

    Attributes:
        predictor: Predictor that segments the images.
        outputs: Where their files are written.
        kinds: Kinds of files to write for each image.
        labels: Writes the labels, None if none were requested.
        request: Arguments of `Predictor.stream`.
        skip: Whether to skip an image that fails.
        segment_kind: What the segment of a DICOM segmentation shows; None for the model's default.
        log: Log of the run, or None.
        done: Output of each image whose files are written, and whether it has a region.
        skipped: Source or output of each failure, and its error.
        damaged: Videos with missing frames, which were logged.
        finished: Videos that were read to their end.
        logged: Errors that are in the log.
    """

    predictor: Predictor
    outputs: Outputs
    kinds: list[SaveKind]
    labels: LabelWriter | None
    request: dict[str, Any]
    skip: bool
    segment_kind: SegmentKind | None = None
    log: RunLog | None = None
    done: list[tuple[Path, bool]] = field(default_factory=list)
    skipped: list[tuple[Any, CondsegError]] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    finished: list[Path] = field(default_factory=list)
    logged: list[CondsegError] = field(default_factory=list)

    def segment(self, stop: interrupts.Stop) -> Iterator[_Image | _Recording]:
        """Yield the predictions and where to write them, until `stop` is requested."""
        images = self.outputs.images
        if images:
            for seg in self._stream(list(images)):
                if stop.requested:
                    return
                yield _Image(Path(seg.name), images[Path(seg.name)], seg, self.kinds)
        for path, base in self.outputs.videos.items():
            is_video = is_video_name(path)
            video = Video(path) if is_video else path
            kinds = [kind for kind in self.kinds if is_video or kind != "dicom-seg"]
            segs: list[Segmentation] = []
            for number, seg in enumerate(self._stream(video)):
                if stop.requested:
                    return
                yield _Image(path, self.outputs.frame(base, number if seg.frame is None else seg.frame), seg, kinds)
                if len(kinds) < len(self.kinds):
                    segs.append(seg)
            if segs:
                yield _Recording(path, base, segs)
            self.finished.append(path)
            if isinstance(video, Video) and video.damage is not None:
                self.damaged.append(path)

    def _stream(self, source: Any) -> Iterator[Segmentation]:
        def skip(failed: Any, error: CondsegError) -> None:
            self.skipped.append((failed, error))
            self.log_failure(failed, error)

        return self.predictor.stream(source, **self.request, on_error=skip if self.skip else "raise")

    def save(self, item: _Image | _Recording) -> None:
        """Write the files of an image: all of them, or none."""
        start = time.perf_counter()
        segs = [item.seg] if isinstance(item, _Image) else item.segs
        try:
            files = self._encode(item)
            if self.labels is None or isinstance(item, _Recording):
                write_files(files)
            else:
                name = self.outputs.image_name(item.base, item.source if item.seg.frame is None else None)
                labels = self.labels.encode(LabeledImage(item.seg, name))
                files = {**files, **labels.files}
                write_files(files)
                self.labels.add(labels)
        except CondsegError as error:
            self.log_failure(item.source, error, frame=segs[0].frame if isinstance(item, _Image) else None)
            if not self.skip:
                raise
            self.skipped.append((item.base, error))
            return
        if isinstance(item, _Image):
            self.done.append((item.base, not item.seg.is_empty))
        if self.log is not None:
            seconds = time.perf_counter() - start
            if isinstance(item, _Image):
                self.log.done(item.source, item.seg, [*files], seconds=seconds + (item.seg.seconds or 0))
            else:
                self.log.done(item.source, replace(segs[0], frame=None), [*files], seconds=seconds)

    def _encode(self, item: _Image | _Recording) -> dict[Path, bytes]:
        """Return the contents of the files of an image, by their paths."""
        from condseg_sdk.segmentation import encode_dicom_seg

        def encode(seg: Segmentation, kind: SaveKind) -> bytes:
            return encode_dicom_seg([seg], self.segment_kind) if kind == "dicom-seg" else seg.encode(kind)

        base = item.base
        if isinstance(item, _Image):
            return {base.with_name(base.name + ENDINGS[kind]): encode(item.seg, kind) for kind in item.kinds}
        return {base.with_name(base.name + RECORDING_ENDING): encode_dicom_seg(item.segs, self.segment_kind)}

    def log_failure(self, failed: Any, error: CondsegError, *, frame: int | None = None) -> None:
        """Append the line of an image that failed: a path, a frame, or what is known from the error."""
        if self.log is None or any(error is known for known in self.logged) or error.path == self.log.path:
            return
        self.logged.append(error)
        if isinstance(failed, DicomFrame):
            failed, frame = failed.file.source, failed.number
        self.log.failed(failed if isinstance(failed, Path) else error.path, error, frame=frame)

    def report(self, out: Path, *, stopped: bool) -> int:
        """Print what was done and what was not, and return the exit code."""
        found = sum(has_region for _, has_region in self.done)
        print(f"{len(self.done)} segmented on {self.predictor.device}, {found} with a region; files in {out}")
        for _, error in self.skipped:
            print(f"skipped: {error}", file=sys.stderr)
        if not stopped:
            return 1 if self.skipped or self.damaged else 0
        over = {base for base, _ in self.done} | {failed for failed, _ in self.skipped if isinstance(failed, Path)}
        left = [image for image, base in self.outputs.images.items() if not {image, base} & over]
        parts = [f"{len(left):,} of {pluralize(len(self.outputs.images), 'image')}, such as {left[0]}"] if left else []
        parts += [f"the rest of {video}" for video in self.outputs.videos if video not in self.finished]
        print(f"{interrupts.STOPPED}; not segmented: {', '.join(parts) or 'nothing'}", file=sys.stderr)
        return interrupts.exit_code()


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if predict_video.writes_video(options):
        return predict_video.run(options, options.defaults, lambda: _open(options))
    predict_video.check_folder_options(options)
    kinds, formats = _save_kinds(options.save)
    segment_kind = _segment_kind(options, kinds)
    check_output_folder(options.out)
    if options.ray is not None:
        return run_on_cluster(options, {kind: ENDINGS[kind] for kind in kinds}, formats)
    log = None if options.log is None else RunLog(options.log)
    labels = LabelWriter(options.out, formats, label=options.label, spacing=options.spacing) if formats else None
    endings = [ENDINGS[kind] for kind in kinds]
    outputs = plan_outputs(
        options.source, options.out, endings, labels=labels, log=options.log, overwrite=options.overwrite
    )
    request = {"threshold": options.threshold, "min_score": options.min_score, "batch_size": options.batch_size}
    request |= {"tta": options.tta, "tile": options.tile, "bits": options.bits, "smooth": options.smooth}
    predictor = _open(options)
    work = _Work(predictor, outputs, kinds, labels, request, options.on_error == "skip", segment_kind, log)
    with log or nullcontext():
        return _finish(work, options)


def _open(options: argparse.Namespace) -> Predictor:
    """Open the model as the options say."""
    from condseg_sdk.predictor import Predictor
    from condseg_sdk.runtimes.open import choose_options

    runtime = options.runtime
    if options.precision is not None:
        runtime = replace(choose_options(options.model, options.device, runtime), precision=options.precision)
    return Predictor.from_pretrained(options.model, device=options.device, runtime=runtime)


def _finish(work: _Work, options: argparse.Namespace) -> int:
    """Segment all sources, and return the exit code."""
    from tqdm import tqdm

    outputs, labels = work.outputs, work.labels
    total = None if outputs.videos else len(outputs.images)
    stopped = False
    try:
        # The files about all images are written last, also after an error. Encoding must not delay the network.
        with interrupts.deferred() as stop, labels or nullcontext(), worker_threads(SAVERS) as savers:
            saved = prefetch_map(work.save, work.segment(stop), pool=savers, ahead=2 * SAVERS)
            for _ in tqdm(saved, total=total, unit="image", disable=total == 1):
                pass
        stopped = stop.requested
    except KeyboardInterrupt:  # where condseg does not handle the signals of the process
        stopped = True
    except CondsegError as error:
        work.log_failure(None, error)
        if work.done:
            work.report(options.out, stopped=False)
        raise
    return work.report(options.out, stopped=stopped)


def _save_kinds(text: str) -> tuple[list[SaveKind], list[str]]:
    """Return the kinds of files that are named after their images, and the formats of labels."""
    kinds = [kind.strip() for kind in text.split(",")]
    known = [*ENDINGS, *FORMATS]
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise OptionError(f"--save {text}: {unknown[0]!r} is not one of {', '.join(known)}", option="save")
    formats = [kind for kind in kinds if kind in FORMATS]
    return cast("list[SaveKind]", [kind for kind in kinds if kind in ENDINGS]), formats


def _segment_kind(options: argparse.Namespace, kinds: list[SaveKind]) -> SegmentKind | None:
    """Return what the segment shows, as the options say; None for the model's default."""
    label, text = options.segment_label, options.segment_type
    if label is None and text is None:
        return None
    option = "segment_label" if text is None else "segment_type"
    flag = f"--{option.replace('_', '-')}"
    if "dicom-seg" not in kinds:
        raise OptionError(f"{flag} is for DICOM segmentations; add --save dicom-seg", option=option)
    code = ("52988006", "SCT", "Lesion") if text is None else tuple(part.strip() for part in text.split(",", 2))
    if len(code) != 3 or not all(code):
        raise OptionError(f"{flag} {text}: give a code, its scheme and its meaning, such as 52988006,SCT,Lesion")
    return SegmentKind(code[2] if label is None else label, cast("Code", code))
