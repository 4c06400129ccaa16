"""Returning freed memory to the system: glibc keeps most small pieces that a process frees."""

import ctypes
import threading
import time
from typing import Final

from triune.core.threads import NoThreadError, start_thread

LARGE_BYTES: Final = 64 << 20
"""Freed memory of at least this size is returned to the system."""

# A second later, its last users have freed it.
_WAIT_SECONDS = 1.0


class Heap:
    """The process's heap. A process has one instance."""

    def __init__(self) -> None:
        # Only glibc has `malloc_trim`. A call through ctypes releases the GIL.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._due = threading.Lock()

    def give_back_soon(self) -> None:
        """Trim the heap in a second, in another thread. Call this when much memory is about to be freed."""
        if self._trim is None or not self._due.acquire(blocking=False):
            return
        try:
            start_thread(self._give_back, "heap")
        except NoThreadError:
            self._due.release()

    def _give_back(self) -> None:
        time.sleep(_WAIT_SECONDS)
        self._due.release()
        if self._trim is not None:
            self._trim(0)


HEAP: Final = Heap()
