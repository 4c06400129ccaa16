"""Return freed memory to the system. The C library glibc keeps most of the small blocks that a process frees."""

import ctypes
import threading
import time
from typing import Final

from triune.core.threads import NoThreadError, start_thread

LARGE_BYTES: Final = 64 << 20
"""Freed memory of at least this size is returned to the system."""

# After a second, the last users of the memory have freed it.
_WAIT_SECONDS = 1.0


class Heap:
    """The memory that the process has allocated. There is one instance in a process."""

    def __init__(self) -> None:
        # Only glibc has `malloc_trim`. A call through ctypes releases the GIL.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._due = threading.Lock()

    def give_back_soon(self) -> None:
        """Return freed memory to the system in a second, in another thread. Call this when much is about to be
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
