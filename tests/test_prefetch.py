"""Working ahead: order, bounds, errors in their turn, threads that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from condseg_sdk.prefetch import prefetch_map, worker_threads


def test_results_come_in_order() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    with worker_threads(4) as pool:
        assert list(prefetch_map(slow_first, range(20), pool=pool, ahead=5)) == [n * n for n in range(20)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_at_most_the_given_number_of_items_is_taken_ahead(ahead: int) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):  # an endless source would do
            taken.append(number)
            yield number

    with worker_threads(2) as pool:
        results = prefetch_map(lambda x: x, numbers(), pool=pool, ahead=ahead)
        for count, result in enumerate(results, 1):
            assert result == count - 1
            assert len(taken) == min(100, count - 1 + ahead)


def test_an_error_comes_in_the_order_of_its_item() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    def broken() -> Iterator[int]:
        yield from (0, 1)
        raise OSError("the source")

    with worker_threads(3) as pool:
        results = prefetch_map(fail_at_two, range(5), pool=pool, ahead=4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(results)
        results = prefetch_map(fail_at_two, broken(), pool=pool, ahead=4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(OSError, match="the source"):
            next(results)


def test_waiting_work_is_dropped_and_threads_end() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.05)
        done.append(number)
        return number

    before = threading.active_count()
    with worker_threads(1) as pool:
        assert next(prefetch_map(work, range(50), pool=pool, ahead=50)) == 0
    assert threading.active_count() == before
    assert len(done) <= 3
