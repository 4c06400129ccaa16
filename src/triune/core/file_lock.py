"""Wait for a lock on an open file, which another process holds only for a moment."""

import errno
import fcntl
import time
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.005


def lock_within(seconds: float, descriptor: int, path: Path, *, is_shared: bool = False) -> None:
    """Lock an open file. The lock ends when the file is closed.

    Args:
        seconds: the longest wait.
        descriptor: the open file.
        path: the file's path, for the error.
        is_shared: whether other processes may share the lock.

    Raises:
        TimeoutError: another process, which may have stopped, holds the lock for longer than `seconds`.
        OSError: the file system has no locks.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"another process holds '{path}' for {seconds:g} s") from None
            time.sleep(_LOOK_SECONDS)
        else:
            return
