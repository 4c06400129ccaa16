"""Memory that was freed in small pieces, given back to the system: glibc keeps most of it for what comes next."""

import ctypes
import threading
import time
from typing import Final

from triune.core.threads import NoThreadError, start_thread

LARGE_BYTES: Final = 64 << 20
"""What was freed from here on is worth giving back."""

# Until those who held it have let it go.
_WAIT_SECONDS = 1.0


class Heap:
    """The process's heap. There is one."""

    def __init__(self) -> None:
        # Only glibc has it; a call by ctypes lets other threads run.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._due = threading.Lock()

    def give_back_soon(self) -> None:
        """In a second, in another thread. Called when much is about to be free."""
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
