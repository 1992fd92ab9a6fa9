"""Orders the records of images by their uncertainty, in memory that does not grow with the number of images."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Iterator
from typing import Any

from condseg_sdk.labels.base import Record

__all__ = ["Ranking"]


class Ranking:
    """Records in the order of their images' uncertainty: the most uncertain first, equal ones by name.

    Args:
        kept: Number of records to keep in memory, from the most uncertain image on. None keeps all of them, in a
            temporary file.

    Example:
        >>> ranking = Ranking()
        >>> ranking.add(0.1, "a.png", {"area": 3})
        >>> ranking.add(0.9, "b.png", {"area": 7})
        >>> [record["area"] for record in ranking]
        [7, 3]
    """

    def __init__(self, kept: int | None = None) -> None:
        self._kept = kept
        self._places: list[tuple[float, str, int]] = []
        self._file = tempfile.TemporaryFile() if kept is None else None  # noqa: SIM115 - it lives as long as this
        self._best: list[tuple[float, _Later, Record]] = []

    def __len__(self) -> int:
        return len(self._places or self._best)

    def add(self, score: float, name: str, record: Record) -> None:
        """Add the record of an image.

        Args:
            score: Uncertainty of the image.
            name: Name of the image, which decides between equal scores.
            record: What is known of it.
        """
        if self._file is not None:
            self._places.append((-score, name, self._file.seek(0, 2)))
            pickle.dump(dict(record), self._file)
            return
        heapq.heappush(self._best, (score, _Later(name), record))
        if len(self._best) > (self._kept or 0):
            heapq.heappop(self._best)

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[Record]:
        if self._file is None:
            yield from (record for _, _, record in sorted(self._best, key=lambda item: item[:2], reverse=True))
            return
        for _, _, place in sorted(self._places):
            self._file.seek(place)
            record: Any = pickle.load(self._file)
            yield record


class _Later(str):
    """A name in reverse alphabetical order: it compares as less than the names before it."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
