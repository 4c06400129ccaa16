"""A lock between processes that nobody waits for when its holder shows no sign of life."""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

from triune.core.threads import NoThreadError, start_thread

BEAT_SECONDS = 2.0
SILENT_SECONDS = 15.0
_LOOK_SECONDS = 0.1


@contextlib.contextmanager
def patient_lock(
    path: Path, *, beat_seconds: float = BEAT_SECONDS, silent_seconds: float = SILENT_SECONDS
) -> Generator[bool]:
    """Hold the lock, and touch its file again and again meanwhile: that is the sign of life.

    It saves work that two would do, and no more: what it guards must be right without it. So whoever waits goes ahead
    where the file was not touched for `silent_seconds`: its holder is stopped, or is none of ours.

    Args:
        path: its file, made if it is not there.
        beat_seconds: from one touch to the next.
        silent_seconds: see above.

    Yields:
        whether the lock is held.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        is_held = _wait(descriptor, silent_seconds)
        is_over = threading.Event()
        if is_held:
            # Without a thread nobody hears of this holder, and others do the work, too.
            with contextlib.suppress(NoThreadError):
                start_thread(lambda: _beat(path, is_over, beat_seconds), "lock")
        try:
            yield is_held
        finally:
            is_over.set()
    finally:
        os.close(descriptor)


def _wait(descriptor: int, silent_seconds: float) -> bool:
    touched_ns, seen_at = 0, time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError:
            # A disk that knows no locks.
            return False
        else:
            return True
        # Whatever the clocks of those who touch it say: a change counts.
        now_ns = os.fstat(descriptor).st_mtime_ns
        if now_ns != touched_ns:
            touched_ns, seen_at = now_ns, time.monotonic()
        elif time.monotonic() - seen_at > silent_seconds:
            return False
        time.sleep(_LOOK_SECONDS)


def _beat(path: Path, is_over: threading.Event, seconds: float) -> None:
    while not is_over.wait(seconds):
        # It may be removed with all its folder while work goes on.
        with contextlib.suppress(OSError):
            os.utime(path)
