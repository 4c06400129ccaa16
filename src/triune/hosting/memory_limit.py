"""The memory that a worker process may take, watched from outside: systems do not hold processes to it alike."""

import contextlib
import threading
from collections.abc import Generator

import psutil

from triune.core.threads import start_thread
from triune.hosting.watched import Watched

_LOOK_SECONDS = 0.1


@contextlib.contextmanager
def held_to(process: Watched, max_bytes: int) -> Generator[None]:
    """Within this, end the process when it takes more: its `limit_met` says so.

    Memory that it shares counts not, as files that it has mapped.

    Raises:
        NoThreadError: the system has no thread for it.
    """
    is_over = threading.Event()

    def watch() -> None:
        # It may end at any time.
        with contextlib.suppress(psutil.Error):
            watched = psutil.Process(process.pid)
            while not is_over.wait(_LOOK_SECONDS):
                memory = watched.memory_info()
                # Not every system tells what is shared.
                if memory.rss - getattr(memory, "shared", 0) > max_bytes:
                    process.kill(f"took more than {max_bytes} bytes of memory, and was ended")
                    return

    start_thread(watch, "memory")
    try:
        yield
    finally:
        is_over.set()
