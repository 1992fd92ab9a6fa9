"""`condseg predict SOURCE --out FILE.mp4`: writes a video, a camera or a stream again with masks over its frames."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.run_log import RunLog
from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.images.live import LiveVideo, Realtime, is_live, open_video
from condseg_sdk.images.load import VIDEO_SUFFIXES
from condseg_sdk.images.video import Video
from condseg_sdk.images.video_writer import VIDEO_FORMATS
from condseg_sdk.overlay_video import OverlayVideo, check_overlay_path, write_overlays
from condseg_sdk.predictor import Predictor
from condseg_sdk.segmentation import Segmentation

__all__ = ["add_video_options", "check_folder_options", "run", "writes_video"]

FOLDER_ONLY = ("save", "label", "spacing", "segment_label", "segment_type", "bits", "on_error")
"""Options that have no meaning where a video is written."""


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for videos."""
    add = parser.add_argument
    add("--smooth", action="store_true", help="smooth the masks of a video over time, so that they flicker less")
    realtime = "take the newest frame, and drop those that come while the network is busy (with --out FILE.mp4)"
    add("--realtime", action="store_true", help=realtime)


def writes_video(options: argparse.Namespace) -> bool:
    """Whether `--out` names a video file and not a folder."""
    out: Path = options.out
    return out.suffix.lower() in VIDEO_FORMATS and not out.is_dir()


def check_folder_options(options: argparse.Namespace) -> None:
    """Refuse what needs a video as output where `--out` is a folder.

    Raises:
        OptionError: A camera or a URL is the source, or `--realtime` was given.
    """
    live = next((source for source in options.source if is_live(source)), None)
    if live is not None or options.realtime:
        what = "--realtime" if live is None else open_video(live).name
        raise OptionError(f"{what} needs a video file as output, such as --out overlay.mp4", option="out")
    if options.smooth and not all(Path(source).suffix.lower() in VIDEO_SUFFIXES for source in options.source):
        raise OptionError("--smooth is for videos; leave it out, or call condseg for the videos alone", option="smooth")


def run(options: argparse.Namespace, defaults: argparse.Namespace, open_predictor: Callable[[], Predictor]) -> int:
    """Write the video and return the exit code.

    Args:
        options: Arguments of `condseg predict`.
        defaults: Their default values.
        open_predictor: Opens the model; called after the checks.
    """
    source = _source(options.source)
    for name in FOLDER_ONLY:
        if getattr(options, name) != getattr(defaults, name):
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"{flag} is for files of single images; give a folder as --out for them", option=name)
    video = open_video(source)
    check_overlay_path(options.out, video, overwrite=options.overwrite)
    log = None if options.log is None else RunLog(options.log)
    predictor = open_predictor()
    frames = Realtime(video) if options.realtime else video
    predictions = predictor.stream(
        frames,
        threshold=options.threshold,
        min_score=options.min_score,
        batch_size=options.batch_size,
        tta=options.tta,
        tile=options.tile,
        smooth=options.smooth,
    )
    work = _Work(predictions, frames, options.out)
    start = time.perf_counter()
    with log or nullcontext():
        try:
            result, stopped = work.finish()
        except CondsegError as error:
            if log is not None:
                log.failed(Path(video.name), error)
            raise
        if log is not None and work.last is not None:
            whole = replace(work.last, frame=None)
            log.done(Path(video.name), whole, [options.out], seconds=time.perf_counter() - start)
    return _report(result, video.name, predictor.device, stopped=stopped)


def _source(sources: Sequence[str]) -> str:
    if len(sources) > 1:
        raise OptionError(
            f"{len(sources)} sources cannot be one video; give one video, or a folder as --out", option="out"
        )
    source = sources[0]
    if not is_live(source) and Path(source).suffix.lower() not in VIDEO_SUFFIXES:
        remedy = "give a folder as --out, or a video, a camera (camera:0) or a URL as source"
        raise OptionError(f"{source} is not a video, and --out names one; {remedy}", option="out")
    return source


class _Work:
    """The predictions of a call, which end at the first signal.

    Attributes:
        last: The last prediction.
    """

    def __init__(self, predictions: Iterator[Segmentation], frames: Video | LiveVideo | Realtime, out: Path) -> None:
        self._predictions = predictions
        self._frames = frames
        self._out = out
        self.last: Segmentation | None = None

    def finish(self) -> tuple[OverlayVideo | None, bool]:
        """Write the video; return it, None if nothing was segmented, and whether it was stopped."""
        try:
            with interrupts.deferred() as stop:
                try:
                    return write_overlays(self._until(stop), self._frames, self._out), stop.requested
                except CondsegError:
                    if stop.requested and self.last is None:
                        return None, True
                    raise
        except KeyboardInterrupt:  # where condseg does not handle the signals of the process
            return None, True

    def _until(self, stop: interrupts.Stop) -> Iterator[Segmentation]:
        from tqdm import tqdm

        with tqdm(unit="frame") as bar:
            for seg in self._predictions:
                if stop.requested:
                    return
                if self.last is None:
                    bar.total = self._frames.frame_count
                number = seg.frame or 0
                bar.update(number + 1 - bar.n)  # frames that are missing or were dropped are passed, too
                self.last = replace(seg, source=b"")
                yield seg


def _report(video: OverlayVideo | None, source: str, device: str, *, stopped: bool) -> int:
    """Print what was written, and return the exit code."""
    if video is None:
        print(f"{interrupts.STOPPED}; nothing was written", file=sys.stderr)
        return interrupts.exit_code()
    print(
        f"{video.segmented} frames segmented on {device}, {video.with_region} with a region; "
        f"{video.path}: {video.frames} frames at {video.rate:g} per second, {video.codec}"
    )
    if video.late:
        print(f"{video.late} of {video.late + video.segmented} frames came too late for the network and were dropped")
    if video.surplus:
        print(
            f"{video.surplus} frames lie closer together than {video.rate:g} per second allow and are not in the video"
        )
    if stopped:
        print(f"{interrupts.STOPPED}; {video.path} ends there; not segmented: the rest of {source}", file=sys.stderr)
        return interrupts.exit_code()
    return 1 if video.damage else 0
