"""Measures how much memory loads add to the process."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from triune.core.heap import HEAP
from triune.hardware.memory import private_bytes

_LITTLE_BYTES: Final = 1 << 20
"""If the memory of requests changes by less than this during a load, the memory charged to the model counts as
certain.
"""


def settled_bytes() -> int:
    """The memory of this process in bytes, after freed memory was returned to the system."""
    HEAP.give_back()
    return private_bytes()


@dataclass(frozen=True, slots=True)
class Growth:
    """How much memory a load added to the process, in bytes, as far as that is known.

    Attributes:
        group: a number that loads share if they overlapped each other.
        own_bytes: the growth by this load; None if other loads overlapped it, since the growth cannot be divided among
            them.
        group_bytes: the growth by all loads of the group, if this was the last load of several; else None.
        is_certain: whether requests held about the same memory before and after the load. If not, their estimated
            memory was subtracted from the growth.
    """

    group: int
    own_bytes: int | None = None
    group_bytes: int | None = None
    is_certain: bool = True


class LoadMeter:
    """Measures loads, or groups of loads that overlap. May be called from any thread."""

    def __init__(
        self, read_bytes: Callable[[], int] = settled_bytes, read_requests: Callable[[], int] = lambda: 0
    ) -> None:
        """Args:
        read_bytes: returns the memory of the process, in bytes.
        read_requests: returns how many of these bytes running requests have reserved.
        """
        self._read_bytes = read_bytes
        self._read_requests = read_requests
        self._lock = threading.Lock()
        self._num_running = self._group = self._start_bytes = self._start_requests = 0
        self._is_overlapped = False

    def begin(self) -> None:
        """Begin to measure a load. `end` or `leave` must follow."""
        with self._lock:
            self._num_running += 1
            if self._num_running > 1:
                self._is_overlapped = True
                return
            self._group += 1
            self._is_overlapped = False
        # Read the memory without the lock, since this takes time. A load that begins meanwhile joins this group, and
        # its first allocations may be missed.
        self._start_bytes, self._start_requests = self._read_bytes(), self._read_requests()

    def end(self) -> Growth:
        """End the measurement of a load that succeeded, and return how much memory it added."""
        with self._lock:
            self._num_running -= 1
            group, is_overlapped = self._group, self._is_overlapped
            if self._num_running:
                return Growth(group)
        of_requests = self._read_requests() - self._start_requests
        num_bytes = max(0, self._read_bytes() - self._start_bytes - max(0, of_requests))
        is_certain = abs(of_requests) < _LITTLE_BYTES
        if is_overlapped:
            return Growth(group, group_bytes=num_bytes, is_certain=is_certain)
        return Growth(group, own_bytes=num_bytes, is_certain=is_certain)

    def leave(self) -> None:
        """End the measurement of a load that failed."""
        with self._lock:
            self._num_running -= 1
