"""Page-locked memory for results, to which a GPU of NVIDIA copies several times as fast as to other memory."""

import ctypes
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

LEAST_BYTES: Final = 1 << 16
"""Smaller results are copied to ordinary memory, which takes no longer."""

_STEPS: Final = 4
"""How many sizes of blocks there are between a power of two and the next."""


class PageLocking(Protocol):
    """Allocates and frees page-locked memory."""

    def allocate(self, num_bytes: int) -> int | None:
        """The address of new memory; None if there is none."""
        ...

    def free(self, address: int) -> None:
        """Free memory that was allocated."""
        ...


class PinnedMemory:
    """Arrays in page-locked memory, which is reused when nothing refers to an array and its views any more.

    Locking takes milliseconds, so blocks are kept. An array that would need more memory than `most_bytes` is not given.
    """

    def __init__(self, locking: PageLocking, most_bytes: int) -> None:
        """`most_bytes` limits the memory of all arrays that are in use, and of the blocks that are kept."""
        self._locking, self._most_bytes = locking, most_bytes
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._idle: OrderedDict[int, list[int]] = OrderedDict()
        # Arrays are collected in any thread, even in one that holds the lock: they only append here.
        self._returned: deque[tuple[int, int]] = deque()

    @property
    def num_bytes(self) -> int:
        """The bytes of all blocks, whether in use or kept."""
        return self._num_bytes

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """An array with arbitrary elements; None if it is small, or if there is no memory for it."""
        num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        size = block_size(num_bytes)
        if num_bytes < LEAST_BYTES or size > self._most_bytes:
            return None
        with self._lock:
            address = self._take(size)
        if address is None:
            return None
        block = (ctypes.c_char * size).from_address(address)
        weakref.finalize(block, self._returned.append, (size, address)).atexit = False
        return np.ndarray(shape, dtype, buffer=memoryview(block))

    def _take(self, size: int) -> int | None:
        while self._returned:
            returned, address = self._returned.popleft()
            self._idle.setdefault(returned, []).append(address)
            self._idle.move_to_end(returned)
        if self._idle.get(size):
            return self._idle[size].pop()
        for other, addresses in list(self._idle.items()):
            while addresses and self._num_bytes + size > self._most_bytes:
                self._locking.free(addresses.pop())
                self._num_bytes -= other
        if self._num_bytes + size > self._most_bytes:
            return None
        address = self._locking.allocate(size)
        if address is not None:
            self._num_bytes += size
        return address


def block_size(num_bytes: int) -> int:
    """The size of the block for an array: at most a quarter more than it needs, so that few sizes occur."""
    step = max(1 << (num_bytes - 1).bit_length() - 1, _STEPS) // _STEPS if num_bytes > 1 else 1
    return -(-num_bytes // step) * step
