"""Several large images are not decoded at once."""

from __future__ import annotations

import threading
import time

import pytest

from condseg_sdk.images.memory_budget import MemoryBudget


def test_threads_wait_while_others_hold_too_much_memory() -> None:
    budget = MemoryBudget(100)
    held, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal held, most
        with budget.reserve(40):
            with lock:
                held += 40
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= 40

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 80


def test_a_request_beyond_the_total_is_granted_alone_and_no_thread_waits_for_itself() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(150), budget.reserve(90):
        pass
    with pytest.raises(KeyError), budget.reserve(100):
        raise KeyError
    with budget.reserve(100):  # given back in spite of the error
        pass
