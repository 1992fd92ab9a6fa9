"""Predictor: a checkpoint that is ready to segment images. It connects the parts and does no arithmetic itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.checkpoints.onnx_metadata import OnnxPrecision
from condseg_sdk.errors import CheckpointError, CondsegError, ImageError, OptionError, errors_about
from condseg_sdk.field_of_view import FieldOfViewTracker
from condseg_sdk.files import real_path
from condseg_sdk.forking import fork_safe
from condseg_sdk.images.bit_depth import check_bits
from condseg_sdk.images.dicom import DicomFile, multi_frame
from condseg_sdk.images.live import LiveVideo, Realtime
from condseg_sdk.images.load import (
    VIDEO_SUFFIXES,
    find_bits,
    find_images,
    is_single,
    load_image,
    read_file_object,
    source_name,
)
from condseg_sdk.images.types import ColorOrder, ImageLike, Sources
from condseg_sdk.images.video import Video
from condseg_sdk.options import check_flags, check_path, check_text
from condseg_sdk.origin import Origin, model_label, utc_now
from condseg_sdk.pipeline import ErrorHandler, Pipeline, Request, Source
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.open import OpenedModel, open_runtime
from condseg_sdk.runtimes.options import OnnxOptions, RuntimeName, TorchOptions
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.smoothing import LogitSmoother, smooth_predictions
from condseg_sdk.weights.hub import local_path
from condseg_sdk.words import pluralize

if TYPE_CHECKING:
    from condseg_sdk.data.training_digests import TrainingDigests
    from condseg_sdk.export.onnx import ExportReport
    from condseg_sdk.models import ConDSeg
    from condseg_sdk.publish import PushResult

__all__ = ["OnError", "Predictor"]

logger = logging.getLogger("condseg_sdk")

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[ImageLike, CondsegError], None]


class Predictor:
    """Segments images with one checkpoint. Create one with `Predictor.from_pretrained`.

    - `predictor(image)` takes one image and returns one `Segmentation`.
    - `predictor.predict(sources)` takes a folder, a glob pattern or a list and returns a list.
    - `predictor.stream(sources)` takes the same, videos and iterables, and yields one prediction after the other.

    It is safe to call from several threads. It can be pickled: the copy opens the same checkpoint again.

    Example:
        >>> predictor = Predictor.from_pretrained("condseg-lite-polyp")
        >>> seg = predictor(np.zeros((480, 640, 3), np.uint8))
        >>> seg.mask.shape, seg.mask.dtype
        ((480, 640), dtype('bool'))
    """

    def __init__(self, opened: OpenedModel, *, reopen: Mapping[str, object]) -> None:
        self._runtime, self._config, self._path, self._weights = opened
        self._reopen = reopen
        self._assumed_bits: set[int] = set()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        device: str = "auto",
        runtime: RuntimeName | TorchOptions | OnnxOptions | None = None,
        preprocessing: Preprocessing | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        manifest: str | os.PathLike[str] | None = None,
    ) -> Predictor:
        """Load a checkpoint.

        Args:
            model: Name from `list_models()`, checkpoint folder, "org/name" (also "org/name@revision" and
                "hf://org/name/path") on the Hugging Face Hub, or file from `export_onnx`, which ONNX Runtime then runs.
            device: "auto" uses a GPU if there is one, otherwise the CPU. "cpu", "cuda" and "cuda:1", with PyTorch also
                "mps", and with .onnx files also "tensorrt", "tensorrt-rtx", "webgpu", "openvino", "openvino:gpu" and
                "openvino:npu" (docs/onnx.md), are used or raise an error.
            runtime: "torch" or "onnx", or the options of one of them, `TorchOptions(...)` or `OnnxOptions(...)`.
                Default: ONNX Runtime for an .onnx file and for devices that only it supports, otherwise PyTorch. "onnx"
                    with
                a folder or repository opens its model.onnx; without one, the checkpoint is exported once, and the file
                kept in Hugging Face's cache.
            preprocessing: Preprocessing that replaces the checkpoint's own. A repository that contains nothing but the
                arguments of a network needs it; its threshold is then 0.5.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Folder for downloads. Default: Hugging Face's own cache.
            token: Access token for private repositories. Default: the one stored by `hf auth login`.
            local_files_only: Whether to use only cached files, without the network.
            manifest: Your own weights manifest, whose names can then be used as well. The environment variable
                CONDSEG_MANIFEST does the same.

        Returns:
            The predictor.

        Raises:
            ModelNotFoundError: The model does not exist; the message lists similar names.
            HubError: The Hub denies access or cannot be reached.
            CheckpointError: The checkpoint is incomplete or damaged, or does not match its SHA-256.
            ExportError: The export that runtime="onnx" needs failed.
            DeviceError: The device cannot be used.
            OptionError: The value of an argument is not allowed, or the model's runtime does not have the option.

        Example:
            >>> Predictor.from_pretrained("condseg-lite-polyp", device="cpu").device
            'cpu'
        """
        _check_open_options(model, device, revision, cache_dir, token, preprocessing, manifest)
        check_flags(local_files_only=local_files_only)
        path = local_path(model, manifest=manifest)
        if path is not None:
            model = path.absolute()  # a pickled copy finds it from another working directory; a link keeps its name
        options: dict[str, Any] = {
            "device": device,
            "runtime": runtime,
            "preprocessing": preprocessing,
            "revision": revision,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "manifest": None if manifest is None else real_path(Path(manifest).expanduser()),
        }
        with errors_about(path):
            opened = open_runtime(model, token=token, **options)
        # No token here: a pickle must not contain one. The copy uses the login of the machine it is opened on.
        return cls(opened, reopen={"model": model, **options})

    def __reduce__(self) -> tuple[Callable[..., Predictor], tuple[type[Predictor], Mapping[str, object]]]:
        return _reopen, (type(self), self._reopen)

    def __repr__(self) -> str:
        return f"Predictor({self.model_id!r}, device={self.device!r})"

    @property
    def model_id(self) -> str:
        """What was opened: a name, a path or "org/name".

        Example:
            >>> predictor.model_id.endswith("condseg-lite-polyp")
            True
        """
        return str(self._reopen["model"])

    @property
    def model(self) -> ConDSeg:
        """The network: float32, on the CPU, in eval mode.

        Predictions are made by a copy of it that is rewritten for inference: changing the network does not change them.

        Raises:
            CheckpointError: The predictor runs an exported graph, which has no network in PyTorch.

        Example:
            >>> predictor.model.encoder.name
            'efficientnet_lite0'
        """
        if self._runtime.network is None:
            raise CheckpointError(
                f"{self!r} runs an exported graph, which has no network in PyTorch: open the checkpoint that it was "
                "exported from with runtime='torch'",
                path=self._path,
            )
        return self._runtime.network

    @property
    def device(self) -> str:
        """Device that the network runs on, such as "cpu" or "cuda:0".

        Example:
            >>> predictor.device
            'cpu'
        """
        return self._runtime.device

    @property
    def providers(self) -> tuple[str, ...]:
        """What executes the network: ("torch",), or ONNX Runtime's execution providers.

        Example:
            >>> predictor.providers
            ('torch',)
        """
        return self._runtime.providers

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing that the checkpoint expects.

        Example:
            >>> predictor.preprocessing.color_order
            'rgb'
        """
        return self._config.preprocessing

    @property
    def threshold(self) -> float:
        """The checkpoint's own threshold, chosen in training.

        Example:
            >>> 0 < predictor.threshold < 1
            True
        """
        return self._config.threshold

    @property
    def training_images(self) -> TrainingDigests | None:
        """Digests of the images that the checkpoint was trained on, None if it has none.

        By them `evaluate` and `check_dataset` recognize such images (docs/evaluation.md).

        Raises:
            CheckpointError: training_images.json is damaged.

        Example:
            >>> predictor.training_images is None
            True
        """
        from condseg_sdk.weights.checkpoint import load_digests  # loads PyTorch

        return load_digests(self._weights.path)

    @property
    def model_sha256(self) -> str | None:
        """SHA-256 of the file with the weights, which outputs state; None if the file has changed since it was opened.

        Example:
            >>> len(predictor.model_sha256)
            64
        """
        return self._weights.sha256

    def __call__(
        self,
        image: ImageLike,
        *,
        threshold: float | None = None,
        min_score: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        branch_uncertainty: bool = False,
        color_order: ColorOrder = "rgb",
        bits: int | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: Path, bytes of a file, binary file object, PIL image, NumPy array (H, W[, C]), torch tensor
                (3, H, W) or frame of a DICOM file; see `condseg_sdk.images.load.load_image`.
            threshold: Lowest probability of a pixel in the mask, in (0, 1). Default: the checkpoint's own.
            min_score: Lowest `Segmentation.score` of an image, in (0, 1), below which its mask is empty: fewer false
                alarms, and more missed regions (docs/accuracy.md). Default: no limit.
            batch_size: Number of tiles that the network processes at once.
            tta: Whether to average over four flips of the image (test-time augmentation): four times the work, a little
                more accurate.
            tile: Side in pixels of the square, overlapping tiles that the image is cut into, for regions that would be
                too small in the whole image. Default: the whole image at once, as in training.
            branch_uncertainty: Whether to also compute `Segmentation.branch_uncertainty`.
            color_order: Channel order of NumPy arrays: "bgr" for arrays from OpenCV.
            bits: Number of bits in use, 8 to 16, of images with 16-bit values. Default: the checkpoint's, if it was
                trained on such images; otherwise it is found from the image, and a warning in the log says so.

        Returns:
            The prediction, at the image's own size.

        Raises:
            ImageError: The image cannot be read.
            OptionError: The value of an argument is not allowed, or `image` refers to several images.

        Example:
            >>> seg = predictor("frame.jpg")
            >>> seg.probability.shape == seg.size
            True
        """
        request = self._request(threshold, min_score, batch_size, tta, tile, branch_uncertainty, color_order, bits)
        if isinstance(image, Video) or _is_stream(image):
            raise OptionError(f"{_shown(image)} is not one image: use predictor.stream(...)", option="image")
        if not is_single(image):
            raise OptionError(f"{_shown(image)} is not one image: use predictor.predict(...)", option="image")
        pipeline = self._pipeline(request, "raise")
        return pipeline.predict_one(_source_of(find_images(image)[0], self._bits(bits)))

    def predict(
        self,
        sources: Sources,
        *,
        threshold: float | None = None,
        min_score: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        branch_uncertainty: bool = False,
        color_order: ColorOrder = "rgb",
        bits: int | None = None,
        on_error: OnError = "raise",
    ) -> list[Segmentation]:
        """Segment many images.

        Args:
            sources: Folder, glob pattern, or a list or tuple of images, folders and patterns. One image is treated as
                a list of one. A DICOM file with several frames stands for all of them.
            threshold: Lowest probability of a pixel in the mask, in (0, 1). Default: the checkpoint's own.
            min_score: Lowest score of an image, as in a call of the predictor.
            batch_size: Number of images (or tiles) that the network processes at once.
            tta: Whether to average over four flips of the image, as in a call of the predictor.
            tile: Side in pixels of the tiles that each image is cut into, as in a call of the predictor.
            branch_uncertainty: Whether to also compute `Segmentation.branch_uncertainty`.
            color_order: Channel order of NumPy arrays: "bgr" for arrays from OpenCV.
            bits: Number of bits in use, 8 to 16, of images with 16-bit values. Default: the checkpoint's, if it was
                trained on such images; otherwise the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value
                of all images, and a warning in the log says so. An image is read in the same way alone and among others
                only if its bits are known.
            on_error: What to do with an image that cannot be read: "raise"; "skip", which leaves it out and logs a
                warning; or a function that is called with the source and the error.

        Returns:
            One prediction for each image or frame, in order, without the skipped ones.

        Raises:
            ImageError: There is no image, or one cannot be read.
            OptionError: The value of an argument is not allowed.

        Example:
            >>> segs = predictor.predict("frames/", batch_size=16)
            >>> all(seg.mask.shape == seg.size for seg in segs)
            True
        """
        request = self._request(threshold, min_score, batch_size, tta, tile, branch_uncertainty, color_order, bits)
        pipeline = self._pipeline(request, on_error)
        if isinstance(sources, Video) or _is_stream(sources):
            raise OptionError(f"{_shown(sources)} is not a list of images: use predictor.stream(...)", option="sources")
        return list(pipeline.predict_all(list(_expand(sources, self._bits(bits), expand_videos=False))))

    def stream(
        self,
        sources: Sources | Video | LiveVideo | Realtime | Iterable[ImageLike],
        *,
        threshold: float | None = None,
        min_score: float | None = None,
        batch_size: int = 8,
        tta: bool = False,
        tile: int | None = None,
        branch_uncertainty: bool = False,
        color_order: ColorOrder = "rgb",
        bits: int | None = None,
        smooth: bool = False,
        on_error: OnError = "raise",
    ) -> Iterator[Segmentation]:
        """Segment many images or the frames of a video, one after the other and with flat memory.

        Args:
            sources: What `predict` takes, the path of a video, a `condseg_sdk.images.video.Video`, a camera or a stream
                (`condseg_sdk.images.live`), or any iterable of images, even an endless one. In a video the `source` of
                each prediction is its frame (RGB), `frame` its number and `time` its time; if the video is damaged, a
                warning in the log says what is missing. The field of view of a video, where the checkpoint crops images
                to it, stays steady from frame to frame. About `batch_size` images are read ahead, except for
                `condseg_sdk.images.live.Realtime`; if the next frame of a camera depends on the prediction for this
                one, call the predictor itself.
            threshold: Lowest probability of a pixel in the mask, in (0, 1). Default: the checkpoint's own.
            min_score: Lowest score of an image, as in a call of the predictor.
            batch_size: Number of images (or tiles) that the network processes at once.
            tta: Whether to average over four flips of the image, as in a call of the predictor.
            tile: Side in pixels of the tiles that each image is cut into, as in a call of the predictor.
            branch_uncertainty: Whether to also compute `Segmentation.branch_uncertainty`.
            color_order: Channel order of NumPy arrays: "bgr" for arrays from OpenCV.
            bits: Number of bits in use of images with 16-bit values, as in `predict`; for an iterable they are
                determined for each image separately.
            smooth: Whether to average the predictions for the frames of a video, or of an iterable of frames, over
                time, moved along with the image (docs/video.md). Masks flicker less.
            on_error: What to do with an image that cannot be read, as in `predict`.

        Returns:
            An iterator of one prediction for each image, in order.

        Raises:
            ImageError: There is no image, or one cannot be read. Raised when its turn comes.
            OptionError: The value of an argument is not allowed. Raised at once.

        Example:
            >>> for seg in predictor.stream("colonoscopy.mp4"):
            ...     print(seg.name)
            colonoscopy.mp4 frame 0
            colonoscopy.mp4 frame 1
            colonoscopy.mp4 frame 2
        """
        request = self._request(threshold, min_score, batch_size, tta, tile, branch_uncertainty, color_order, bits)
        if color_order == "bgr" and _is_video(sources):
            raise OptionError(
                f"{_shown(sources)}: color_order='bgr' is for NumPy arrays; the frames of a video are RGB already",
                option="color_order",
            )
        check_flags(smooth=smooth)
        if smooth and not (_is_video(sources) or _is_stream(sources) or _is_recording(sources)):
            raise OptionError(f"smooth is for videos and iterables of frames, not {_shown(sources)}", option="smooth")
        steady = self.preprocessing.field_of_view != "none"
        pipeline = self._pipeline(request, on_error)
        images = _expand(sources, self._bits(bits), steady=steady)
        # Reading ahead would make each prediction of a live image late.
        predict = partial(map, pipeline.predict_one) if isinstance(sources, Realtime) else pipeline.predict_all
        predictions = predict(images)
        return smooth_predictions(predictions, LogitSmoother()) if smooth else predictions

    @fork_safe
    def export_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        precision: OnnxPrecision = "float32",
        dynamic: bool = True,
        branch_uncertainty: bool = False,
        preprocessing: bool = False,
        opset: int = 18,
        verify: bool = True,
        images: Sources | None = None,
        calibration: Sources | None = None,
    ) -> ExportReport:
        """Write the network as one ONNX file that `from_pretrained` can open.

        Args:
            path: File to write, which ends in .onnx. An existing file is replaced once the new one is complete and
                verified.
            precision: Precision of weights and arithmetic: "float32"; "float16", half the size, for GPUs; "int8", a
                quarter of the size, for CPUs. Inputs and outputs are always float32.
            dynamic: Whether batch, height and width are dynamic. Otherwise, and with `preprocessing=True`, the network
                takes one image at the checkpoint's size, which is a little faster and which some compilers need.
            branch_uncertainty: Whether the graph has a second output, the map of the uncertainty branch.
            preprocessing: Whether to write a graph for programs without this package: uint8 RGB image of any size in,
                probabilities of that size out (docs/onnx.md). `from_pretrained` does not open such a file.
            opset: Version of the ONNX operators, 18 to 23.
            verify: Whether to compare the graph with PyTorch before the file takes its place.
            images: Images like those to be segmented, to verify with: a folder, glob pattern or list. Default: the
                calibration images, or noise and gradients.
            calibration: Images for "int8", which needs a few dozen of them to learn the range of every activation.

        Returns:
            The written file, and its difference from PyTorch.

        Raises:
            OptionError: The value of an argument is not allowed.
            OutputError: The file cannot be written.
            CheckpointError: The predictor runs an exported graph.
            ExportError: The export failed or differs from the network; no file is left behind.

        Example:
            >>> predictor.export_onnx("model.onnx")  # doctest: +SKIP
            >>> fast = Predictor.from_pretrained("model.onnx")  # doctest: +SKIP
        """
        from condseg_sdk.export.onnx import check_export_options, export_onnx

        check_export_options(
            path,
            precision,
            opset,
            dynamic=dynamic,
            branch_uncertainty=branch_uncertainty,
            preprocessing=preprocessing,
            verify=verify,
        )
        network = self.model
        samples, calibrating = (
            [] if sources is None else _load_all(sources, self.preprocessing.bits) for sources in (images, calibration)
        )
        return export_onnx(
            network,
            self._config,
            path,
            precision=precision,
            dynamic=dynamic,
            branch_uncertainty=branch_uncertainty,
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
            repo_id: Repository, "org/name". It is created if it does not exist.
            onnx: Whether to export the network, verify it against PyTorch and also publish model.onnx.
            private: Whether a new repository is private. Default: the setting of the organization.
            token: Access token with write access. Default: the one stored by `hf auth login`.
            branch: Branch to commit to, created if it does not exist. Default: the main branch.
            create_pr: Whether to open a pull request instead of committing to the branch.
            commit_message: First line of the commit message.

        Returns:
            The commit, and the entry for a weights manifest that pins it.

        Raises:
            OptionError: `repo_id` or `branch` is not a valid name.
            CheckpointError: The predictor runs an exported graph.
            HubError: The Hub cannot be reached, or denies write access.
            ExportError: The ONNX file differs from the network; nothing is published.

        Example:
            >>> predictor.push_to_hub("org/polyps", private=True).entry.to_dict()  # doctest: +SKIP
        """
        from condseg_sdk.publish import push_checkpoint

        return push_checkpoint(
            self.model,
            self._config,
            repo_id,
            folder=self._path,
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
        min_score: float | None,
        batch_size: int,
        tta: bool,
        tile: int | None,
        branch_uncertainty: bool,
        color_order: ColorOrder,
        bits: int | None,
    ) -> Request:
        check_bits(bits)
        request = Request(
            threshold=self.threshold if threshold is None else threshold,
            batch_size=batch_size,
            tta=tta,
            tile=tile,
            branch_uncertainty=branch_uncertainty,
            color_order=color_order,
            min_score=min_score,
        )
        if branch_uncertainty:
            self._runtime.check_branch_uncertainty()
        return request

    def _bits(self, bits: int | None) -> int | None:
        return self.preprocessing.bits if bits is None else bits

    def _pipeline(self, request: Request, on_error: OnError) -> Pipeline:
        return Pipeline(
            self._runtime,
            self.preprocessing,
            request,
            on_error=_handler(on_error),
            model_id=self.model_id,
            assumed_bits=self._assumed_bits,
            origin=self._origin,
            score_calibration=self._config.score,
        )

    def _origin(self) -> Origin:
        model = self._reopen["model"]
        label = model_label(model if isinstance(model, Path) else str(model))
        return Origin(label, self._weights, ", ".join(self.providers), self.device, utc_now())


def _check_open_options(
    model: object,
    device: object,
    revision: object,
    cache_dir: object,
    token: object,
    preprocessing: object,
    manifest: object,
) -> None:
    check_path("model", model)
    check_text("device", device)
    if revision is not None:
        check_text("revision", revision)
    if token is not None and not isinstance(token, bool):
        check_text("token", token)
    for name, path in (("cache_dir", cache_dir), ("manifest", manifest)):
        if path is not None:
            check_path(name, path)
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise OptionError(
            f"preprocessing={preprocessing!r} must be a condseg_sdk.Preprocessing", option="preprocessing"
        )


def _shown(source: Any) -> str:
    """Name a source of many images for messages."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"a {type(source).__name__}"


def _is_video(source: Any) -> bool:
    return isinstance(source, (Video, LiveVideo, Realtime)) or (
        isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in VIDEO_SUFFIXES
    )


def _is_recording(source: Any) -> bool:
    """Whether a source is a DICOM file with several frames."""
    return multi_frame(Path(source) if isinstance(source, (str, os.PathLike)) else source) is not None


def _expand(sources: Any, bits: int | None, *, expand_videos: bool = True, steady: bool = False) -> Iterator[Source]:
    """Yield the images that `sources` refers to, and the frames of its videos, each with the bits in use.

    With `steady` the frames of a video get their field of view, which stays the same for as long as possible.
    """
    if isinstance(sources, (Video, LiveVideo, Realtime)):
        yield from _frames(sources, steady)
        return
    if _is_stream(sources):
        items = sources
    else:
        items = find_images(sources)
        if bits is None and not is_single(sources):
            bits = _bits_of_set(items, sources)
    for item in items:
        if expand_videos and _is_video(item) and (isinstance(item, Video) or not Path(item).is_dir()):
            yield from _frames(item if isinstance(item, Video) else Video(item), steady)
        else:
            source = _source_of(item, bits)
            file = multi_frame(source.image)
            if file is None:
                yield source
            else:
                yield from _dicom_frames(file, steady)


def _load_all(sources: Any, bits: int | None) -> list[NDArray[np.uint8]]:
    """Load the images that `sources` refers to in the same way as for a prediction."""
    loaded = []
    for source in _expand(sources, bits, expand_videos=False):
        if source.error is not None:
            raise source.error
        loaded.append(load_image(source.image, bits=source.bits))
    return loaded


def _source_of(item: Any, bits: int | None) -> Source:
    name = source_name(item)
    if not hasattr(item, "read") or isinstance(item, (str, os.PathLike)):
        return Source(item, name, bits=bits)
    try:  # a file object may be gone when the prediction reads its image again
        return Source(read_file_object(item), name, bits=bits)
    except ImageError as error:
        return Source(item, name, error)


def _bits_of_set(images: list[Any], sources: Any) -> int | None:
    depth = find_bits(images)
    if depth is None:
        return None
    if depth.is_guess:
        name = os.fspath(sources) if isinstance(sources, (str, os.PathLike)) else pluralize(len(images), "image")
        logger.warning("%s: %s", name, depth.describe())
    return depth.bits


def _frames(video: Video | LiveVideo | Realtime, steady: bool) -> Iterator[Source]:
    tracker = FieldOfViewTracker() if steady else None
    try:
        for frame in video:
            height, width = frame.pixels.shape[:2]
            box = None if tracker is None else tracker(frame.pixels) or (0, 0, width, height)
            name = f"{video.name} frame {frame.number}"
            yield Source(frame.pixels, name, frame=frame.number, time=frame.time, field_of_view=box)
    except ImageError as error:
        yield Source(video.path if isinstance(video, Video) else video.name, video.name, error)


def _dicom_frames(file: DicomFile, steady: bool) -> Iterator[Source]:
    tracker = FieldOfViewTracker() if steady else None
    for frame in file.frames:
        box, error = None, None
        if tracker is not None:
            try:
                box = tracker(frame.decode()) or (0, 0, *file.size[::-1])
            except ImageError as reason:  # the others may be intact
                error = reason
        yield Source(frame, frame.name, error, frame=frame.number, field_of_view=box)


def _is_stream(source: Any) -> bool:
    """Return whether to iterate over a source. `find_images` iterates over lists; everything else is one image."""
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
    raise OptionError(
        f"on_error={on_error!r} must be 'raise', 'skip' or a function of a source and its error", option="on_error"
    )


def _reopen(cls: type[Predictor], options: dict[str, Any]) -> Predictor:
    return cls.from_pretrained(**options)
