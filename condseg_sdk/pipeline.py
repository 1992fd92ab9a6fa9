"""From sources to answers, in order: images are decoded ahead in threads while the network works on a batch.

At most a few batches are in memory, however long the list or the video is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import CondsegError, OptionError
from condseg_sdk.images import ColorOrder, load_image
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.runtimes.base import Maps, Runtime, run_flipped
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.tiling import merge, plan_tiles

DECODERS = min(4, os.cpu_count() or 1)
MIN_TILE = 32  # below it a tile shows less than one cell of the network's coarsest map

ErrorHandler = Callable[[Any, CondsegError], None]


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
        if not 0 < self.threshold < 1:
            raise OptionError(f"threshold={self.threshold!r} must lie between 0 and 1, both excluded")
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size!r} must be at least 1")
        if self.tile is not None and self.tile < MIN_TILE:
            raise OptionError(f"tile={self.tile!r} must be a side in pixels, at least {MIN_TILE}")


@dataclass(frozen=True)
class Named:
    """A source with the name its answer shall carry."""

    source: Any
    name: str


@dataclass(frozen=True)
class _Decoded:
    named: Named
    size: tuple[int, int]
    pixels: NDArray[Any]  # network input (3, h, w), or with tiles the image (H, W, 3)


class Pipeline:
    """Answers sources with one runtime.

    Args:
        runtime: executes the network.
        preprocessing: of the checkpoint.
        request: how to answer.
        on_error: called with a source that cannot be read and its error; None raises the error.
    """

    def __init__(
        self, runtime: Runtime, preprocessing: Preprocessing, request: Request, *, on_error: ErrorHandler | None
    ) -> None:
        self.runtime = runtime
        self.preprocessing = preprocessing
        self.request = request
        self.on_error = on_error

    def answer(self, sources: Iterable[Named]) -> Iterator[Segmentation]:
        """One Segmentation for each source that can be read, in order."""
        decoded = self._decoded_ahead(sources)
        if self.request.tile is not None:
            yield from map(self._answer_tiled, decoded)
            return
        for batch in _batched(decoded, self.request.batch_size):
            maps = self._run(np.stack([item.pixels for item in batch]))
            for index, item in enumerate(batch):
                uncertainty = None if maps.uncertainty is None else maps.uncertainty[index].copy()
                yield self._segmentation(item, maps.mask[index].copy(), uncertainty)

    def _decode(self, named: Named) -> _Decoded:
        image = load_image(named.source, color_order=self.request.color_order)
        pixels = image if self.request.tile is not None else self.preprocessing(image)
        return _Decoded(named, (image.shape[0], image.shape[1]), pixels)

    def _decoded_ahead(self, sources: Iterable[Named]) -> Iterator[_Decoded]:
        iterator = iter(sources)
        ahead = self.request.batch_size + DECODERS
        with ThreadPoolExecutor(DECODERS) as pool:
            waiting = deque((named, pool.submit(self._decode, named)) for named in islice(iterator, ahead))
            try:
                while waiting:
                    named, future = waiting.popleft()
                    try:
                        decoded = future.result()
                    except CondsegError as error:
                        if self.on_error is None:
                            raise
                        self.on_error(named.source, error)
                    else:
                        yield decoded
                    waiting.extend((named, pool.submit(self._decode, named)) for named in islice(iterator, 1))
            finally:  # also when the caller stops early
                pool.shutdown(cancel_futures=True)

    def _run(self, batch: NDArray[np.float32]) -> Maps:
        if self.request.tta:
            return run_flipped(self.runtime, batch, uncertainty=self.request.uncertainty)
        return self.runtime.run(batch, uncertainty=self.request.uncertainty)

    def _answer_tiled(self, item: _Decoded) -> Segmentation:
        assert self.request.tile is not None
        tiles = plan_tiles(item.size, tile=self.request.tile)
        answers = [
            self._run(np.stack([self.preprocessing(tile.crop(item.pixels)) for tile in group]))
            for group in _batched(tiles, self.request.batch_size)
        ]
        mask = merge(tiles, (x for maps in answers for x in maps.mask), size=item.size)
        uncertainty = None
        if self.request.uncertainty:
            parts = (x for maps in answers if maps.uncertainty is not None for x in maps.uncertainty)
            uncertainty = merge(tiles, parts, size=item.size)
        return self._segmentation(item, mask, uncertainty)

    def _segmentation(
        self, item: _Decoded, mask: NDArray[np.float32], uncertainty: NDArray[np.float32] | None
    ) -> Segmentation:
        return Segmentation(
            mask,
            item.size,
            threshold=self.request.threshold,
            source=item.named.source,
            name=item.named.name,
            color_order=self.request.color_order,
            uncertainty_logits=uncertainty,
        )
