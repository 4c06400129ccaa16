"""Memory that was freed goes back to the system."""

import sys
import time

import numpy as np
import psutil
import pytest

from triune.core.heap import Heap

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="macOS gives back what is freed by itself")
def test_what_was_freed_in_small_pieces_is_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    # Small ones between the large, so that the heap does not simply end before them.
    pieces = [(np.ones(100_000, np.uint8), np.ones(1000, np.uint8)) for _ in range(3000)]
    kept = [small for _, small in pieces]
    del pieces
    Heap().give_back_soon()
    deadline = time.monotonic() + 60
    while process.memory_info().rss > before + 50 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(each.all() for each in kept)
