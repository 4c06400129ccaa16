"""A lock between processes. A waiting process goes on without the lock if its holder seems to have stopped."""

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
    """Hold the lock, and touch its file every `beat_seconds`, as a heartbeat.

    The lock only avoids that two processes do the same work: the guarded code must be correct without it. A process
    that waits goes on without the lock if the file was not touched for `silent_seconds`: the holder has stopped, or is
    another program.

    Args:
        path: the lock file, created if it does not exist.
        beat_seconds: the time between two touches.
        silent_seconds: how long a process waits for the next touch.

    Yields:
        whether the lock is held.

    Raises:
        OSError: the file cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        is_held = _wait(descriptor, silent_seconds)
        is_over = threading.Event()
        if is_held:
            # If no thread can start, there is no heartbeat. Then waiting processes go on without the lock, and repeat
            # the work.
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
            # The error says that the file system has no locks: go on without the lock.
            return False
        else:
            return True
        # Compare the file's time only with its previous time, since the clocks of different machines may differ.
        now_ns = os.fstat(descriptor).st_mtime_ns
        if now_ns != touched_ns:
            touched_ns, seen_at = now_ns, time.monotonic()
        elif time.monotonic() - seen_at > silent_seconds:
            return False
        time.sleep(_LOOK_SECONDS)


def _beat(path: Path, is_over: threading.Event, seconds: float) -> None:
    while not is_over.wait(seconds):
        # Ignore the error if the lock file, or its folder, was removed while the lock is held.
        with contextlib.suppress(OSError):
            os.utime(path)
