"""A lock on a folder that several processes change, which tells each of them when another one has changed it."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

WAIT_SECONDS: Final = 10.0
"""The longest wait for the lock. Who holds it writes one block, or deletes some."""

_LOOK_SECONDS: Final = 0.005
_COUNT_BYTES: Final = 8


class FolderLock:
    """The lock of a folder: its file `.lock`, which also counts how often the folder was changed."""

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: the folder.
        """
        self._path = folder / ".lock"
        self._count = -1

    @contextlib.contextmanager
    def changing(self) -> Generator[bool]:
        """Hold the lock, to change the folder. On a file system without locks, nothing is locked.

        Yields:
            whether another process has changed the folder since this process last held the lock; True the first time.

        Raises:
            TimeoutError: another process holds the lock for longer than WAIT_SECONDS.
            OSError: the lock file cannot be made, read or written.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            _lock(descriptor, self._path)
            found = int.from_bytes(os.pread(descriptor, _COUNT_BYTES, 0), "big")
            # The count is increased first, so that other processes read the folder again even if this process is killed
            # meanwhile.
            count = (found + 1) % (1 << 8 * _COUNT_BYTES)
            os.pwrite(descriptor, count.to_bytes(_COUNT_BYTES, "big"), 0)
            is_changed, self._count = found != self._count, count
            yield is_changed
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"another process holds '{path}' for {WAIT_SECONDS:g} s") from None
            time.sleep(_LOOK_SECONDS)
        except OSError:
            return
        else:
            return
