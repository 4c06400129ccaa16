"""A worker process's memory limit, enforced from outside, since not every system can enforce it."""

import contextlib
import threading
from collections.abc import Generator

import psutil

from triune.core.threads import start_thread
from triune.hardware.memory import private_bytes
from triune.hosting.watched import Watched

_LOOK_SECONDS = 0.1


@contextlib.contextmanager
def held_to(process: Watched, max_bytes: int) -> Generator[None]:
    """A context in which the process is killed when it and its child processes together take more than `max_bytes`.
    `Watched.limit_met` then names the limit.

    Shared memory, such as mapped files, does not count.

    Raises:
        NoThreadError: the system cannot start a thread.
    """
    is_over = threading.Event()

    def watch() -> None:
        # Stop watching when psutil raises an error: the process has ended, which may happen at any time.
        with contextlib.suppress(psutil.Error):
            watched = psutil.Process(process.pid)
            while not is_over.wait(_LOOK_SECONDS):
                if sum(private_bytes(each.pid) for each in (watched, *watched.children(recursive=True))) > max_bytes:
                    process.kill(f"took more than {max_bytes} bytes of memory, and was ended")
                    return

    start_thread(watch, "memory")
    try:
        yield
    finally:
        is_over.set()
