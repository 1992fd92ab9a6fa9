"""From images to predictions, in order, with the network always busy.

With a GPU three things happen at the same time: threads decode and resize images, a separate thread runs the network
on batches, and the caller uses the predictions made before. On a CPU they take turns, each on all cores. Only a few
batches are in memory, however long the list or the video is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CheckpointError, CondsegError
from condseg_sdk.field_of_view import Box, crop
from condseg_sdk.forking import fork_safe
from condseg_sdk.images.bit_depth import BitDepth
from condseg_sdk.images.load import ColorOrder, read_image
from condseg_sdk.images.spacing import PixelSpacing
from condseg_sdk.options import check_choice, check_flags, check_integer, check_number, check_threshold
from condseg_sdk.origin import Origin
from condseg_sdk.prefetch import DECODERS, PauseGate, prefetch_map, worker_threads
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.region_score import ScoreCalibration
from condseg_sdk.runtimes.base import Logits, Runtime, run_flipped, uses_all_cores
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.tiling import merge, plan_tiles

logger = logging.getLogger("condseg_sdk")

BATCHES_AHEAD = 2  # one in the network and one ready for it
MAX_BATCH = 65536  # a larger batch is a mistake and exceeds any memory
MIN_TILE = 32  # a smaller tile shows less than one cell of the network's coarsest map

ErrorHandler = Callable[[Any, CondsegError], None]
Mapper = Callable[..., Iterator[Any]]  # `map` or `prefetch_map`

T = TypeVar("T")


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items; the last one may be shorter (`itertools.batched` needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(frozen=True)
class Request:
    """How images are segmented: the arguments of `Predictor.__call__`, which are checked here."""

    threshold: float
    batch_size: int
    tta: bool
    tile: int | None
    branch_uncertainty: bool
    color_order: ColorOrder
    min_score: float | None = None

    def __post_init__(self) -> None:
        check_choice("color_order", self.color_order, ColorOrder)
        check_flags(tta=self.tta, branch_uncertainty=self.branch_uncertainty)
        values = {
            "threshold": check_threshold(self.threshold),
            "batch_size": check_integer("batch_size", self.batch_size, least=1, most=MAX_BATCH),
            "min_score": (
                None if self.min_score is None else check_number("min_score", self.min_score, above=0, below=1)
            ),
            "tile": None if self.tile is None else check_integer("tile", self.tile, least=MIN_TILE),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Source:
    """An image to segment.

    Attributes:
        image: The image, as `load_image` takes it.
        name: Name of its prediction.
        error: Error to raise when its turn comes, such as a video that cannot be read; None if there is an image.
        field_of_view: The part that the network sees, if it is already known, as in a video.
        bits: Number of bits in use, if the image has 16-bit values; None to find it from the image.
        frame: Number of the frame in its video.
        time: Time of the frame in its video, in seconds.
    """

    image: Any
    name: str
    error: CondsegError | None = None
    field_of_view: Box | None = None
    bits: int | None = None
    frame: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class _Decoded:
    """An image that was read and prepared for the network."""

    source: Source
    start: float  # `time.perf_counter()` when reading began
    size: tuple[int, int]
    bits: int | None
    spacing: tuple[PixelSpacing, ...]
    field_of_view: Box | None  # None for the whole image
    pixels: NDArray[Any]  # network input (3, h, w), or with tiles the field of view (H, W, 3)


@dataclass(frozen=True)
class _Failed:
    """An image that cannot be read; it keeps its place so that its error comes in order."""

    source: Source
    error: CondsegError


@dataclass(frozen=True)
class BatchResult:
    """The images of a batch with their failures, and the logits of each decoded image."""

    items: list[_Decoded | _Failed]
    masks: list[NDArray[np.float32]]
    branches: list[NDArray[np.float32] | None]


class Pipeline:
    """Segments images with one runtime.

    Args:
        runtime: Runtime that executes the network.
        preprocessing: Preprocessing of the checkpoint.
        request: How the images are segmented.
        on_error: Function that is called with an image that cannot be read and its error; None raises the error.
        model_id: Name of the model in messages.
        assumed_bits: Numbers of bits that were already assumed for individual images; each is logged once.
        origin: Returns the origin that the predictions contain; called once for each batch.
        score_calibration: Calibration of the predictions' scores, if the checkpoint has one.
    """

    def __init__(
        self,
        runtime: Runtime,
        preprocessing: Preprocessing,
        request: Request,
        *,
        on_error: ErrorHandler | None,
        model_id: str = "the model",
        assumed_bits: set[int] | None = None,
        origin: Callable[[], Origin] | None = None,
        score_calibration: ScoreCalibration | None = None,
    ) -> None:
        self.runtime = runtime
        self.preprocessing = preprocessing
        self.request = request
        self.on_error = on_error
        self.model_id = model_id
        self.origin = origin
        self.score_calibration = score_calibration
        # On a CPU the network uses every core, and each of its steps waits for the slowest: a decoder at the same time
        # costs more than it gains. There the two take turns: between two batches the decoders use all cores.
        self._cores = PauseGate() if uses_all_cores(runtime.device) else None
        self._assumed_bits = set() if assumed_bits is None else assumed_bits

    def predict_one(self, source: Source) -> Segmentation:
        """Segment one image in the caller's thread; an error is raised."""
        return next(self._segmentations(self._predict_batch([fork_safe(self._decode)(source)], map)))

    def predict_all(self, sources: Iterable[Source]) -> Iterator[Segmentation]:
        """Yield a prediction for each image that can be read, in order.

        An error is raised or passed to `on_error` after the predictions before it. An error of the iterator `sources`
        itself is always raised.
        """
        with worker_threads(DECODERS) as decoders, worker_threads(1) as network:
            # With tiles an image is a batch of its own, and may be a large one.
            ahead = BATCHES_AHEAD if self.request.tile is not None else self.request.batch_size + DECODERS
            decoded = prefetch_map(self._try_decode, sources, pool=decoders, ahead=ahead)
            batches = self._batches(decoded)
            predict = partial(self._predict_batch, mapper=partial(prefetch_map, pool=decoders, ahead=BATCHES_AHEAD))
            # On a CPU the network runs in the caller's thread: a second thread would bring a second team of OpenMP
            # threads, and with more threads than cores each step of the network sleeps and wakes.
            beside = self._cores is None
            results = (
                prefetch_map(predict, batches, pool=network, ahead=BATCHES_AHEAD) if beside else map(predict, batches)
            )
            for result in results:
                yield from self._segmentations(result)

    def _decode(self, source: Source) -> _Decoded:
        """Read an image and prepare it for the network."""
        if source.error is not None:
            raise source.error
        start = time.perf_counter()
        with read_image(source.image, color_order=self.request.color_order, bits=source.bits) as image:
            if image.depth is not None and (image.depth.is_guess or image.depth.clipped):
                self._warn_of_bits(source, image.depth)
            height, width = image.pixels.shape[:2]
            box = source.field_of_view or self.preprocessing.find_field_of_view(image.pixels)
            if box == (0, 0, width, height):
                box = None
            inside = crop(image.pixels, box)
            pixels = inside if self.request.tile is not None else self._network_input(inside)
            bits = image.depth.bits if image.depth else None
            return _Decoded(source, start, (height, width), bits, image.spacing, box, pixels)

    def _network_input(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepare a field of view or a tile, which is not cropped any further."""
        return self.preprocessing.normalize(self.preprocessing.resize(pixels))

    def _warn_of_bits(self, source: Source, depth: BitDepth) -> None:
        """Log which bits were assumed for an image, or how much they clip: once for each number of bits."""
        if depth.bits not in self._assumed_bits:
            self._assumed_bits.add(depth.bits)
            logger.warning("%s: %s", source.name, depth.describe())

    def _try_decode(self, source: Source) -> _Decoded | _Failed:
        if self._cores is not None:
            self._cores.wait()
        try:
            return self._decode(source)
        except CondsegError as error:
            return _Failed(source, error)

    def _batches(self, decoded: Iterable[_Decoded | _Failed]) -> Iterator[list[_Decoded | _Failed]]:
        """Yield batches of images, failures included; with tiles, of one image, whose tiles fill batches."""
        size = self.request.batch_size if self.request.tile is None else 1
        batch: list[_Decoded | _Failed] = []
        try:
            for item in decoded:
                batch.append(item)
                if isinstance(item, _Failed) and self.on_error is None:
                    break  # it will be raised, and nothing after it is needed
                if len(batch) == size:
                    yield batch
                    batch = []
        except Exception:  # raised by the iterator `sources`; the images before it come first
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    def _predict_batch(self, items: list[_Decoded | _Failed], mapper: Mapper) -> BatchResult:
        decoded = [item for item in items if isinstance(item, _Decoded)]
        if not decoded:
            return BatchResult(items, [], [])
        if self.request.tile is not None:
            maps = [self._run_tiled(item, mapper) for item in decoded]
            return BatchResult(items, [m for m, _ in maps], [u for _, u in maps])
        masks, branches = self._run(np.stack([item.pixels for item in decoded]))
        # Copies, so that keeping one prediction does not keep its whole batch in memory.
        return BatchResult(
            items,
            [mask.copy() for mask in masks],
            [None] * len(masks) if branches is None else [branch.copy() for branch in branches],
        )

    def _run(self, batch: NDArray[np.float32]) -> Logits:
        run = partial(run_flipped, self.runtime) if self.request.tta else self.runtime.run
        with self._cores.closed() if self._cores is not None else nullcontext():
            return run(batch, branch_uncertainty=self.request.branch_uncertainty)

    def _run_tiled(self, item: _Decoded, mapper: Mapper) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        assert self.request.tile is not None
        size = (item.pixels.shape[0], item.pixels.shape[1])
        tiles = plan_tiles(size, tile=self.request.tile)
        groups = mapper(
            lambda group: np.stack([self._network_input(tile.crop(item.pixels)) for tile in group]),
            _batched(tiles, self.request.batch_size),
        )
        logits = [self._run(group) for group in groups]
        mask = merge(tiles, (x for maps in logits for x in maps.mask), size=size)
        if not self.request.branch_uncertainty:
            return mask, None
        parts = (x for maps in logits if maps.branch_uncertainty is not None for x in maps.branch_uncertainty)
        return mask, merge(tiles, parts, size=size)

    def _segmentations(self, result: BatchResult) -> Iterator[Segmentation]:
        maps = zip(result.masks, result.branches, strict=True)
        origin = self.origin() if self.origin is not None and result.masks else None
        for item in result.items:
            if isinstance(item, _Decoded):
                yield self._segmentation(item, *next(maps), origin)
            elif self.on_error is None:
                raise item.error
            else:
                self.on_error(item.source.image, item.error)

    def _segmentation(
        self, item: _Decoded, mask: NDArray[np.float32], branch: NDArray[np.float32] | None, origin: Origin | None
    ) -> Segmentation:
        if not np.isfinite(mask).all():
            remedy = "its weights are damaged: load it again, or in float32 if it runs in a lower precision"
            raise CheckpointError(f"{self.model_id} predicted NaN or infinity for {item.source.name}; {remedy}")
        return Segmentation(
            mask,
            item.size,
            threshold=self.request.threshold,
            source=item.source.image,
            name=item.source.name,
            color_order=self.request.color_order,
            branch_logits=branch,
            field_of_view=item.field_of_view,
            bits=item.bits,
            frame=item.source.frame,
            time=item.source.time,
            spacing=item.spacing,
            origin=origin,
            seconds=time.perf_counter() - item.start,
            score_calibration=self.score_calibration,
            min_score=self.request.min_score,
        )
