"""From sources to answers, in order, with the network always at work.

With a GPU three things happen at once: sources are decoded and resized in threads, one thread of its own runs the
network on batches, and the caller uses the answers before them. On a CPU they take turns, each on all cores. A few
batches are in memory, however long the list or the video.
"""

from __future__ import annotations

import logging
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
from condseg_sdk.options import check_choice, check_flags, check_integer, check_number
from condseg_sdk.prefetch import DECODERS, PauseGate, prefetch_map, worker_threads
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Logits, Runtime, run_flipped
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.tiling import merge, plan_tiles

logger = logging.getLogger("condseg_sdk")

BATCHES_AHEAD = 2  # one in the network and one ready for it
MAX_BATCH = 65536  # more images at once are a slip, and more than any memory holds
MIN_TILE = 32  # below it a tile shows less than one cell of the network's coarsest map

ErrorHandler = Callable[[Any, CondsegError], None]
Mapper = Callable[..., Iterator[Any]]  # `map`, or one that works ahead


T = TypeVar("T")


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter. (itertools.batched needs Python 3.12.)"""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclass(frozen=True)
class Request:
    """How sources are to be answered: `Predictor.__call__`'s arguments, checked here."""

    threshold: float
    batch_size: int
    tta: bool
    tile: int | None
    uncertainty: bool
    color_order: ColorOrder

    def __post_init__(self) -> None:
        check_choice("color_order", self.color_order, ColorOrder)
        check_flags(tta=self.tta, uncertainty=self.uncertainty)
        values = {
            "threshold": check_number("threshold", self.threshold, above=0, below=1),
            "batch_size": check_integer("batch_size", self.batch_size, least=1, most=MAX_BATCH),
            "tile": None if self.tile is None else check_integer("tile", self.tile, least=MIN_TILE),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Source:
    """A source with the name its answer shall carry.

    Attributes:
        source: what `load_image` takes.
        name: of the answer.
        error: why there is nothing to load, such as a video that ends early.
        field_of_view: What the network sees of it, where that is known, as in a video.
        bits: Number of bits in use, if the image has 16-bit values; None to find it from the image.
        frame: Number of the frame in its video.
    """

    source: Any
    name: str
    error: CondsegError | None = None
    field_of_view: Box | None = None
    bits: int | None = None
    frame: int | None = None


@dataclass(frozen=True)
class _Decoded:
    named: Source
    size: tuple[int, int]
    bits: int | None
    field_of_view: Box | None  # None for all of it
    pixels: NDArray[Any]  # network input (3, h, w), or with tiles the field of view (H, W, 3)


@dataclass(frozen=True)
class _Failed:
    """Stands in the place of a source that cannot be read, so that its error comes in order."""

    named: Source
    error: CondsegError


@dataclass(frozen=True)
class BatchResult:
    """A batch, failures in their places, and the maps of what was decoded, one each."""

    items: list[_Decoded | _Failed]
    masks: list[NDArray[np.float32]]
    uncertainties: list[NDArray[np.float32] | None]


class Pipeline:
    """Answers sources with one runtime.

    Args:
        runtime: executes the network.
        preprocessing: of the checkpoint.
        request: how to answer.
        on_error: called with a source that cannot be read and its error; None raises the error.
        model: What messages call the model.
        assumed_bits: Bits that were assumed for single images before, each of which is told once.
    """

    def __init__(
        self,
        runtime: Runtime,
        preprocessing: Preprocessing,
        request: Request,
        *,
        on_error: ErrorHandler | None,
        model: str = "the model",
        assumed_bits: set[int] | None = None,
    ) -> None:
        self.runtime = runtime
        self.preprocessing = preprocessing
        self.request = request
        self.on_error = on_error
        self.model = model
        # On a CPU the network takes every core, and each of its steps waits for the slowest: a decoder beside it costs
        # more than it gains. There the two take turns, decoders using all cores between two batches.
        self._cores = PauseGate() if runtime.device == "cpu" else None
        self._assumed_bits = set() if assumed_bits is None else assumed_bits

    def predict_one(self, named: Source) -> Segmentation:
        """The answer for one source, in the caller's thread; an error is raised."""
        return next(self._segmentations(self._answered([fork_safe(self._decode)(named)], map)))

    def predict_all(self, sources: Iterable[Source]) -> Iterator[Segmentation]:
        """One Segmentation for each source that can be read, in order.

        An error is raised, or given to `on_error`, after the answers before it; one of the iterator `sources` itself is
        raised in any case.
        """
        with worker_threads(DECODERS) as decoders, worker_threads(1) as network:
            # With tiles an image is a batch of its own, and may be a large one.
            ahead = BATCHES_AHEAD if self.request.tile is not None else self.request.batch_size + DECODERS
            decoded = prefetch_map(self._try_decode, sources, pool=decoders, ahead=ahead)
            batches = self._batches(decoded)
            answer = partial(self._answered, mapper=partial(prefetch_map, pool=decoders, ahead=BATCHES_AHEAD))
            # In the caller's thread on a CPU: a second thread there would have a second team of OpenMP threads, and
            # more threads than cores make each of the network's steps sleep and wake.
            beside = self._cores is None
            results = (
                prefetch_map(answer, batches, pool=network, ahead=BATCHES_AHEAD) if beside else map(answer, batches)
            )
            for answered in results:
                yield from self._segmentations(answered)

    def _decode(self, named: Source) -> _Decoded:
        if named.error is not None:
            raise named.error
        with read_image(named.source, color_order=self.request.color_order, bits=named.bits) as image:
            if image.depth is not None and (image.depth.is_guess or image.depth.clipped):
                self._warn_of_bits(named, image.depth)
            height, width = image.pixels.shape[:2]
            box = named.field_of_view or self.preprocessing.find_field_of_view(image.pixels)
            if box == (0, 0, width, height):
                box = None
            inside = crop(image.pixels, box)
            pixels = inside if self.request.tile is not None else self._network_input(inside)
            return _Decoded(named, (height, width), image.depth.bits if image.depth else None, box, pixels)

    def _network_input(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of a field of view or a tile, in which there is nothing more to cut."""
        return self.preprocessing.normalize(self.preprocessing.resize(pixels))

    def _warn_of_bits(self, named: Source, depth: BitDepth) -> None:
        """Say which bits were assumed for an image, or how much they clip: once for each number of bits."""
        if depth.bits not in self._assumed_bits:
            self._assumed_bits.add(depth.bits)
            logger.warning("%s: %s", named.name, depth.describe())

    def _try_decode(self, named: Source) -> _Decoded | _Failed:
        if self._cores is not None:
            self._cores.wait()
        try:
            return self._decode(named)
        except CondsegError as error:
            return _Failed(named, error)

    def _batches(self, decoded: Iterable[_Decoded | _Failed]) -> Iterator[list[_Decoded | _Failed]]:
        """Lists of `batch_size`, failures counted; of a single image with tiles, which make batches themselves."""
        size = self.request.batch_size if self.request.tile is None else 1
        batch: list[_Decoded | _Failed] = []
        try:
            for item in decoded:
                batch.append(item)
                if isinstance(item, _Failed) and self.on_error is None:
                    break  # it will be raised: nothing after it is wanted
                if len(batch) == size:
                    yield batch
                    batch = []
        except Exception:  # of the sources' iterator: first what it gave before
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    def _answered(self, items: list[_Decoded | _Failed], mapper: Mapper) -> BatchResult:
        decoded = [item for item in items if isinstance(item, _Decoded)]
        if not decoded:
            return BatchResult(items, [], [])
        if self.request.tile is not None:
            maps = [self._run_tiled(item, mapper) for item in decoded]
            return BatchResult(items, [m for m, _ in maps], [u for _, u in maps])
        masks, uncertainties = self._run(np.stack([item.pixels for item in decoded]))
        # Copies: one answer that is kept must not keep its whole batch.
        return BatchResult(
            items,
            [mask.copy() for mask in masks],
            [None] * len(masks) if uncertainties is None else [u.copy() for u in uncertainties],
        )

    def _run(self, batch: NDArray[np.float32]) -> Logits:
        run = partial(run_flipped, self.runtime) if self.request.tta else self.runtime.run
        with self._cores.closed() if self._cores is not None else nullcontext():
            return run(batch, uncertainty=self.request.uncertainty)

    def _run_tiled(self, item: _Decoded, mapper: Mapper) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        assert self.request.tile is not None
        size = (item.pixels.shape[0], item.pixels.shape[1])
        tiles = plan_tiles(size, tile=self.request.tile)
        groups = mapper(
            lambda group: np.stack([self._network_input(tile.crop(item.pixels)) for tile in group]),
            _batched(tiles, self.request.batch_size),
        )
        answers = [self._run(group) for group in groups]
        mask = merge(tiles, (x for maps in answers for x in maps.mask), size=size)
        if not self.request.uncertainty:
            return mask, None
        parts = (x for maps in answers if maps.uncertainty is not None for x in maps.uncertainty)
        return mask, merge(tiles, parts, size=size)

    def _segmentations(self, answered: BatchResult) -> Iterator[Segmentation]:
        maps = zip(answered.masks, answered.uncertainties, strict=True)
        for item in answered.items:
            if isinstance(item, _Decoded):
                yield self._segmentation(item, *next(maps))
            elif self.on_error is None:
                raise item.error
            else:
                self.on_error(item.named.source, item.error)

    def _segmentation(
        self, item: _Decoded, mask: NDArray[np.float32], uncertainty: NDArray[np.float32] | None
    ) -> Segmentation:
        if not np.isfinite(mask).all():
            remedy = "its weights are damaged: load it again, or use precision='float32' if it runs in less"
            raise CheckpointError(f"{self.model} answered NaN or infinity for {item.named.name}; {remedy}")
        return Segmentation(
            mask,
            item.size,
            threshold=self.request.threshold,
            source=item.named.source,
            name=item.named.name,
            color_order=self.request.color_order,
            uncertainty_logits=uncertainty,
            field_of_view=item.field_of_view,
            bits=item.bits,
            frame=item.named.frame,
        )
