"""Memory that was freed goes back to the system."""

import subprocess
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


ALLOCATING = """
import ctypes, threading
import numpy as np
from triune.core.heap import HEAP
{limit}
together = threading.Barrier(12)
def allocate():
    together.wait()
    small = [np.ones(50_000, np.uint8) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for each in threads:
    each.start()
for each in threads:
    each.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="arenas are glibc's")
def test_threads_share_a_few_arenas() -> None:
    def num_arenas(limit: str) -> int:
        code = ALLOCATING.format(limit=limit)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stderr.count("Arena ")

    assert num_arenas("HEAP.limit_arenas(2)") <= 2
    assert num_arenas("") > 2
