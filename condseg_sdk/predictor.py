"""Predictor: a checkpoint, ready to segment whatever a user has. It wires the parts and holds no arithmetic."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.errors import CondsegError, ImageError, OptionError
from condseg_sdk.field_of_view import FieldOfViewTracker
from condseg_sdk.forking import fork_safe
from condseg_sdk.images.bit_depth import check_bits
from condseg_sdk.images.load import (
    VIDEO_SUFFIXES,
    ColorOrder,
    find_bits,
    find_images,
    is_single,
    load_image,
    read_file_object,
    source_name,
)
from condseg_sdk.images.video import Video
from condseg_sdk.options import check_flags, check_path, check_text
from condseg_sdk.pipeline import ErrorHandler, Pipeline, Request, Source
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Runtime
from condseg_sdk.runtimes.open import Execution, Precision, RuntimeName, open_runtime
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.weights.checkpoint import CheckpointConfig, load_checkpoint
from condseg_sdk.weights.hub import local_path, resolve

if TYPE_CHECKING:
    from condseg_sdk.export.onnx import ExportReport
    from condseg_sdk.publish import PushResult

__all__ = ["Predictor"]

logger = logging.getLogger("condseg_sdk")

OnError = Literal["raise", "skip"] | Callable[[Any, CondsegError], None]


class Predictor:
    """Segments images with one checkpoint. Make one with `Predictor.from_pretrained`.

    Safe to call from several threads. It can be pickled: the copy opens the same checkpoint again.

    Example:
        >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")  # doctest: +SKIP
        >>> seg = predictor("frame.jpg")  # doctest: +SKIP
        >>> seg.mask.shape, seg.area  # doctest: +SKIP
        ((531, 622), 21870)
    """

    def __init__(self, runtime: Runtime, config: CheckpointConfig, *, reopen: dict[str, Any]) -> None:
        self._runtime = runtime
        self._config = config
        self._reopen = reopen
        self._assumed_bits: set[int] = set()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        runtime: RuntimeName | None = None,
        device: str = "auto",
        precision: Precision | None = None,
        execution: Execution | None = None,
        threads: int | None = None,
        session_options: Mapping[str, str] | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        preprocessing: Preprocessing | None = None,
        manifest: str | os.PathLike[str] | None = None,
    ) -> Predictor:
        """Load a checkpoint.

        Args:
            model: a name from `list_models()`, a checkpoint folder, "org/name" (also "org/name@revision" and
                "hf://org/name/path") on the Hugging Face Hub, or a file from `export_onnx`, which ONNX Runtime then
                runs.
            runtime: "torch" or "onnx"; default: ONNX Runtime for an .onnx file, otherwise PyTorch. "onnx" with a folder
                or repository opens its model.onnx.
            device: "auto" takes a GPU if one can be used; "cpu", "cuda", "cuda:1" are taken or refused, also "mps"
                with PyTorch and "tensorrt" with an .onnx file.
            precision: "float32" (default); on a GPU also "float16" or "bfloat16"; "bfloat16" also on a CPU with
                AVX512_BF16. An .onnx file has its own.
            execution: of PyTorch: "eager" (default), "compiled" (torch.compile) or, on a GPU, "cuda-graph".
            threads: of ONNX Runtime for one operation on the CPU; for PyTorch use `torch.set_num_threads`.
            session_options: ONNX Runtime's session configuration, such as
                {"session.intra_op.allow_spinning": "0"}.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept; default: Hugging Face's own cache.
            token: for private repositories; default: the one you are logged in with.
            local_files_only: never go to the network.
            preprocessing: what the network expects of its input, instead of what its checkpoint says. A repository
                that holds nothing but a network's arguments needs it; its threshold is then 0.5.
            manifest: a weights manifest of your own, whose names can be used, too (also the environment variable
                CONDSEG_MANIFEST).

        Raises:
            ModelNotFoundError: nothing of that name; the message lists the nearest ones.
            CheckpointError: found but incomplete, damaged, or not the file its hash promises.
            DeviceError: the device cannot be used.
        """
        _check_open_options(model, device, session_options, revision, cache_dir, token, preprocessing, manifest)
        check_flags(local_files_only=local_files_only)
        path = local_path(model, manifest=manifest)
        if path is not None:
            model = path.absolute()  # a pickled copy finds it from another working directory; a link keeps its name
        options: dict[str, Any] = {
            "runtime": runtime,
            "device": device,
            "precision": precision,
            "execution": execution,
            "threads": threads,
            "session_options": session_options,
            "revision": revision,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "preprocessing": preprocessing,
            "manifest": None if manifest is None else Path(manifest).expanduser().resolve(),
        }
        opened, config = open_runtime(model, token=token, **options)
        # No token here: a pickle is no place for one. The copy uses the login of the machine it is opened on.
        return cls(opened, config, reopen={"model": model, **options})

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._reopen)

    def __repr__(self) -> str:
        return f"Predictor({self.model!r}, device={self.device!r})"

    @property
    def model(self) -> str:
        """What was opened: a name, a path or "org/name"."""
        return str(self._reopen["model"])

    @property
    def device(self) -> str:
        """Where the network really runs, such as "cpu" or "cuda:0"."""
        return self._runtime.device

    @property
    def providers(self) -> tuple[str, ...]:
        """What really executes the network: ("torch",), or ONNX Runtime's providers."""
        return self._runtime.providers

    @property
    def preprocessing(self) -> Preprocessing:
        """What the checkpoint expects of its input."""
        return self._config.preprocessing

    @property
    def threshold(self) -> float:
        """The checkpoint's own threshold, chosen in training."""
        return self._config.threshold

    def __call__(
        self,
        source: Any,
        *,
        threshold: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        uncertainty: bool = False,
        color_order: ColorOrder = "rgb",
        bits: int | None = None,
        on_error: OnError = "raise",
    ) -> Any:
        """Segment one image, or many.

        Args:
            source: one image (a path, bytes, PIL image, NumPy array (H, W[, C]), torch tensor (3, H, W)), or a
                folder, a glob pattern, or a list or tuple of any of these.
            threshold: probability from which a pixel belongs to the mask, in (0, 1); default: the checkpoint's own.
            batch_size: images (or tiles) the network gets at once.
            tta: average over the four mirror images: four times the work, a little more accurate.
            tile: side in pixels of square, overlapping tiles into which each image is cut, for regions that would be
                too small in the whole image; default: the whole image at once, as in training.
            uncertainty: compute `Segmentation.uncertainty`, too.
            color_order: "bgr" for NumPy arrays from OpenCV.
            bits: number of bits in use, 8 to 16, of images with 16-bit values. Default: the checkpoint's, if it was
                trained on such images; else the smallest of 8, 10, 12, 14 and 16 bits that holds the greatest value of
                all images of the call, which a line in the log tells. Only with bits known in one of these ways is an
                image read alike alone and among others.
            on_error: with many images, what happens to one that cannot be read: "raise", "skip" (the others are
                answered and a log message names it), or a function that gets the source and the error.

        Returns:
            One `Segmentation` for one image, otherwise a list of them, in order, skipped images left out.

        Raises:
            ImageError: a source cannot be read; always for a single image.
            OptionError: an argument's value is not allowed.

        Example:
            >>> predictor("frame.jpg").area  # doctest: +SKIP
            21870
            >>> [seg.area for seg in predictor("frames/", batch_size=16)]  # doctest: +SKIP
            [21870, 0, 1311]
        """
        request = self._request(threshold, batch_size, tta, tile, uncertainty, color_order, bits)
        pipeline = self._pipeline(request, on_error)
        bits = self.preprocessing.bits if bits is None else bits
        sources = list(_named(source, bits, expand_videos=False))
        if is_single(source):
            return pipeline.predict_one(sources[0])
        return list(pipeline.predict_all(sources))

    def stream(
        self,
        source: Any,
        *,
        threshold: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        uncertainty: bool = False,
        color_order: ColorOrder = "rgb",
        bits: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Segmentation]:
        """Segment many images, or the frames of a video, one answer at a time and with flat memory.

        Args:
            source: as in a call, a path to a video, or any iterable of images, endless ones included. In a video
                each answer's `source` is its frame, RGB, and `frame` its number; if the video is damaged, a line in the
                log tells what is missing (`condseg_sdk.images.video.Video` has it, too, and may be given itself). The
                field of view of a video, where the checkpoint wants one, stays steady from frame to frame. Some
                `batch_size` images more are taken from it than were answered:
                for a camera, whose next frame waits for the answer
                to this one, call the predictor itself.
            threshold, batch_size, tta, tile, uncertainty, color_order, bits, on_error: as in a call; the images of an
                iterable are not known beforehand, so that the bits of each one are found by itself.

        Yields:
            One `Segmentation` for each image, in order.

        Raises:
            ImageError, OptionError: as in a call; options are checked at once, sources when their turn comes.

        Example:
            >>> for seg in predictor.stream("colonoscopy.mp4"):  # doctest: +SKIP
            ...     print(seg.name, seg.area)
        """
        request = self._request(threshold, batch_size, tta, tile, uncertainty, color_order, bits)
        if color_order == "bgr" and _is_video(source):
            raise OptionError(f"{source}: color_order='bgr' is for NumPy arrays; a video's frames are RGB already")
        bits = self.preprocessing.bits if bits is None else bits
        steady = self.preprocessing.field_of_view != "none"
        return self._pipeline(request, on_error).predict_all(_named(source, bits, steady=steady))

    @fork_safe
    def export_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        precision: OnnxPrecision = "float32",
        dynamic: bool = True,
        uncertainty: bool = False,
        preprocessing: bool = False,
        opset: int = 18,
        verify: bool = True,
        images: Any = None,
        calibration: Any = None,
    ) -> ExportReport:
        """Write the network as one ONNX file that `from_pretrained` can open.

        Args:
            path: ends in .onnx; an existing file is replaced, once the new one is whole and verified.
            precision: "float32"; "float16" for GPUs; "int8" for CPUs. Inputs and outputs are float32 always.
            dynamic: leave batch, height and width free; otherwise one image at the checkpoint's size.
            uncertainty: give the graph the uncertainty map, too.
            preprocessing: a graph for programs without this package: uint8 RGB image of any size in, probabilities
                at that size out (docs/onnx.md). `from_pretrained` does not take it.
            opset: of ONNX.
            verify: compare with PyTorch before the file takes its place.
            images: a folder, glob pattern or list of images like those to be segmented, to verify with.
            calibration: the same for "int8", which needs some dozens of images to learn the range of every activation.

        Returns:
            What was written, and how far it is from PyTorch.

        Raises:
            OptionError: an argument's value is not allowed, or the file cannot be written.
            ExportError: the export failed or differs from the network; nothing is left on disk.

        Example:
            >>> predictor.export_onnx("model.onnx")  # doctest: +SKIP
            >>> fast = Predictor.from_pretrained("model.onnx")  # doctest: +SKIP
        """
        from condseg_sdk.export.onnx import check_export_options, export_onnx

        check_export_options(
            path, precision, opset, dynamic=dynamic, uncertainty=uncertainty, preprocessing=preprocessing, verify=verify
        )
        if self.providers != ("torch",):
            raise OptionError(f"{self!r} runs an export already: export from the checkpoint it was made of")
        keys = ("revision", "cache_dir", "local_files_only", "manifest")
        folder = resolve(self._reopen["model"], **{key: self._reopen[key] for key in keys})
        network, config = load_checkpoint(folder, preprocessing=self._reopen["preprocessing"])
        samples, calibrating = (
            [] if sources is None else _load_all(sources, self.preprocessing.bits) for sources in (images, calibration)
        )
        return export_onnx(
            network,
            config,
            path,
            precision=precision,
            dynamic=dynamic,
            uncertainty=uncertainty,
            preprocessing=preprocessing,
            opset=opset,
            verify=verify,
            images=samples,
            calibration=calibrating,
        )

    @fork_safe
    def push_to_hub(
        self,
        repo_id: str,
        *,
        onnx: bool = False,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Upload checkpoint with condseg_sdk",
    ) -> PushResult:
        """Publish the checkpoint on the Hugging Face Hub: config.json, model.safetensors (float32) and a model card.

        Args:
            repo_id: "org/name"; made if it does not exist.
            onnx: export the network, verify it against PyTorch and publish model.onnx, too.
            private: make a new repository a private one; default: as the organisation has it.
            token: with the right to write; default: the one you are logged in with.
            branch: to commit to; made if it does not exist; default: the main branch.
            create_pr: open a pull request instead of committing to the branch.
            commit_message: its first line.

        Returns:
            The commit, and the entry for a weights manifest that pins it.

        Raises:
            OptionError: `repo_id` or `branch` cannot be one, or the predictor runs an export.
            ModelNotFoundError: the Hub cannot be reached, or does not let you write.
            ExportError: the ONNX file differs from the network; nothing is published.

        Example:
            >>> predictor.push_to_hub("org/polyps", private=True).entry.to_dict()  # doctest: +SKIP
        """
        from condseg_sdk.publish import push_checkpoint

        for name, text in (("repo_id", repo_id), ("commit_message", commit_message)):
            check_text(name, text)
        if branch is not None:
            check_text("branch", branch)
        if token is not None and not isinstance(token, bool):
            check_text("token", token)
        check_flags(onnx=onnx, create_pr=create_pr, **({} if private is None else {"private": private}))
        model = self._reopen["model"]
        if self.providers != ("torch",):
            raise OptionError(f"{self!r} runs an export: push the checkpoint it was made of, with onnx=True")
        keys = ("revision", "cache_dir", "local_files_only", "manifest")
        return push_checkpoint(
            resolve(model, token=token, **{key: self._reopen[key] for key in keys}),
            repo_id,
            preprocessing=self._reopen["preprocessing"],
            onnx=onnx,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            commit_message=commit_message,
        )

    def _request(
        self,
        threshold: float | None,
        batch_size: int,
        tta: bool,
        tile: int | None,
        uncertainty: bool,
        color_order: ColorOrder,
        bits: int | None,
    ) -> Request:
        check_bits(bits)
        request = Request(
            threshold=self.threshold if threshold is None else threshold,
            batch_size=batch_size,
            tta=tta,
            tile=tile,
            uncertainty=uncertainty,
            color_order=color_order,
        )
        if uncertainty:
            self._runtime.check_uncertainty()
        return request

    def _pipeline(self, request: Request, on_error: OnError) -> Pipeline:
        return Pipeline(
            self._runtime,
            self.preprocessing,
            request,
            on_error=_handler(on_error),
            model=self.model,
            assumed_bits=self._assumed_bits,
        )


def _check_open_options(
    model: Any,
    device: Any,
    session_options: Any,
    revision: Any,
    cache_dir: Any,
    token: Any,
    preprocessing: Any,
    manifest: Any,
) -> None:
    check_path("model", model)
    check_text("device", device)
    if session_options is not None and not (
        isinstance(session_options, Mapping)
        and all(isinstance(text, str) for pair in session_options.items() for text in pair)
    ):
        raise OptionError(f"session_options={session_options!r} must map names to values, all of them strings")
    if revision is not None:
        check_text("revision", revision)
    if token is not None and not isinstance(token, bool):
        check_text("token", token)
    for name, path in (("cache_dir", cache_dir), ("manifest", manifest)):
        if path is not None:
            check_path(name, path)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise OptionError(f"preprocessing={preprocessing!r} must be a condseg_sdk.Preprocessing")


def _is_video(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def _named(source: Any, bits: int | None, *, expand_videos: bool = True, steady: bool = False) -> Iterator[Source]:
    """The images that a source means, and the frames of its videos, each with the bits in use.

    With `steady` the frames of a video have their field of view, which stays where it is while it can.
    """
    if isinstance(source, Video):
        yield from _frames(source, steady)
        return
    if _is_stream(source):
        items = source
    else:
        items = find_images(source)
        if bits is None and not is_single(source):
            bits = _bits_of_set(items, source)
    for item in items:
        if expand_videos and (isinstance(item, Video) or (_is_video(item) and not Path(item).is_dir())):
            yield from _frames(item if isinstance(item, Video) else Video(item), steady)
        else:
            yield _named_image(item, bits)


def _load_all(sources: Any, bits: int | None) -> list[NDArray[np.uint8]]:
    """The images that a source means, read as a call reads them."""
    loaded = []
    for named in _named(sources, bits, expand_videos=False):
        if named.error is not None:
            raise named.error
        loaded.append(load_image(named.source, bits=named.bits))
    return loaded


def _named_image(item: Any, bits: int | None) -> Source:
    name = source_name(item)
    if not hasattr(item, "read") or isinstance(item, (str, os.PathLike)):
        return Source(item, name, bits=bits)
    try:  # a file object may be gone when the prediction wants its image again
        return Source(read_file_object(item), name, bits=bits)
    except ImageError as error:
        return Source(item, name, error)


def _bits_of_set(images: list[Any], source: Any) -> int | None:
    depth = find_bits(images)
    if depth is None:
        return None
    if depth.is_guess:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"{len(images)} images"
        logger.warning("%s: %s", name, depth.describe())
    return depth.bits


def _frames(video: Video, steady: bool) -> Iterator[Source]:
    tracker = FieldOfViewTracker() if steady else None
    try:
        for frame in video:
            height, width = frame.pixels.shape[:2]
            box = None if tracker is None else tracker(frame.pixels) or (0, 0, width, height)
            name = f"{video.path} frame {frame.number}"
            yield Source(frame.pixels, name, frame=frame.number, field_of_view=box)
    except ImageError as error:
        yield Source(video.path, str(video.path), error)


def _is_stream(source: Any) -> bool:
    """Whether to iterate over it. Over lists, which may name folders, `find_images` does; the rest is one image."""
    known = (str, bytes, bytearray, memoryview, os.PathLike, list, tuple, Mapping)
    one = isinstance(source, known) or hasattr(source, "__array__") or hasattr(source, "read")
    return isinstance(source, Iterable) and not one


def _handler(on_error: OnError) -> ErrorHandler | None:
    if callable(on_error):
        return on_error
    if on_error == "raise":
        return None
    if on_error == "skip":
        return lambda _, error: logger.warning("skipped: %s", error)
    raise OptionError(f"on_error={on_error!r} must be 'raise', 'skip' or a function of a source and its error")


def _reopen(cls: type[Predictor], options: dict[str, Any]) -> Predictor:
    return cls.from_pretrained(**options)
