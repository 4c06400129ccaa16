"""Return freed memory to the system. The C library glibc keeps most of the small blocks that a process frees."""

import ctypes
import threading
import time
from typing import Final

from triune.core.threads import NoThreadError, start_thread

LARGE_BYTES: Final = 64 << 20
"""Freed memory of at least this size is returned to the system."""

# The value of M_ARENA_MAX, glibc's parameter of `mallopt` for the number of arenas.
_ARENA_MAX: Final = -8

# `give_back_soon` waits this long: by then, the objects that use the memory have been freed.
_WAIT_SECONDS = 1.0


class Heap:
    """The heap of this process. There is one instance per process."""

    def __init__(self) -> None:
        # Call the C library through ctypes, which releases the GIL. Only glibc has `malloc_trim`.
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        self._set = getattr(library, "mallopt", None) if self._trim is not None else None
        self._due = threading.Lock()

    def limit_arenas(self, count: int) -> None:
        """Let all threads together allocate from at most `count` arenas. Call this before there are many threads.

        By default glibc has eight arenas for each core, and each keeps tens of megabytes of memory that its threads
        freed.
        """
        if self._set is not None:
            self._set(_ARENA_MAX, count)

    def give_back_soon(self) -> None:
        """Return freed memory to the system in a second, in another thread. Call this when much memory is about to be
        freed.
        """
        if self._trim is None or not self._due.acquire(blocking=False):
            return
        try:
            start_thread(self._give_back, "heap")
        except NoThreadError:
            self._due.release()

    def give_back(self) -> None:
        """Return freed memory to the system now. Takes milliseconds, in which other threads may wait for memory."""
        if self._trim is not None:
            self._trim(0)

    def _give_back(self) -> None:
        time.sleep(_WAIT_SECONDS)
        self._due.release()
        self.give_back()


HEAP: Final = Heap()
