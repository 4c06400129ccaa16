"""Folders that several processes use: a lock on a folder, which tells each of them when another one has changed it, and
a mark that a folder is in use.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from triune.core.file_lock import lock_within

WAIT_SECONDS: Final = 10.0
"""The longest wait for the lock, in seconds. A process that holds it only writes one block, or deletes some."""

_LOOK_SECONDS: Final = 0.005
_COUNT_BYTES: Final = 8
_HELD: Final = ".held"
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FolderLock:
    """The lock of a folder: its file `.lock`, which also counts how often the folder was changed."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the folder to lock. The lock is not held yet."""
        self._path = folder / ".lock"
        self._count = -1

    @contextlib.contextmanager
    def changing(self) -> Generator[int]:
        """A context that holds the lock, in which the folder may be changed. On a file system without locks, nothing is
        locked.

        Yields:
            how often other processes have held the lock since this process last held it. When this process has not held
            it before, it is how often the lock was ever held, plus 1.

        Raises:
            TimeoutError: another process holds the lock for longer than WAIT_SECONDS.
            OSError: the lock file cannot be made, read or written.
        """
        descriptor = os.open(self._path, _FLAGS | os.O_CREAT, 0o666)
        try:
            try:
                lock_within(WAIT_SECONDS, descriptor, self._path)
            except TimeoutError:
                raise
            except OSError:
                # This file system has no locks: go on without one.
                pass
            found = int.from_bytes(os.pread(descriptor, _COUNT_BYTES, 0), "big")
            # The count is increased first, so that other processes read the folder again even if this process is killed
            # meanwhile.
            count = (found + 1) % (1 << 8 * _COUNT_BYTES)
            os.pwrite(descriptor, count.to_bytes(_COUNT_BYTES, "big"), 0)
            num_others = (found - self._count) % (1 << 8 * _COUNT_BYTES)
            self._count = count
            yield num_others
        finally:
            os.close(descriptor)


class FolderHold:
    """Marks a folder as in use while this process lives, by a shared lock on its file `.held`."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the folder to mark. It is not marked yet."""
        self._folder = folder
        self._path = folder / _HELD
        self._descriptor: int | None = None

    def take(self) -> None:
        """Mark the folder, which is made if it is missing.

        Raises:
            TimeoutError: another process removes the folder for longer than WAIT_SECONDS.
            OSError: the folder or the file cannot be made.
        """
        until = time.monotonic() + WAIT_SECONDS
        while not self._is_taken():
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"another process removes '{self._folder}' for {WAIT_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)

    def release(self) -> None:
        """Remove the mark, so that other processes may delete the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_taken(self) -> bool:
        """Try to mark the folder; False while another process removes it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._path, _FLAGS | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return False
        self._descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError:
            # This file system has no locks, so the folder cannot be marked: count it as marked.
            return True
        try:
            is_there = os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self.release()
        return is_there


def remove_unless_held(folder: Path) -> None:
    """Delete a folder, without an error if parts of it cannot be deleted, unless a living process has marked it as in
    use (`FolderHold`). A marked folder on a file system without locks stays: its process may be living.
    """
    descriptor = None
    try:
        try:
            descriptor = os.open(folder / _HELD, _FLAGS)
        except OSError:
            # No process has marked the folder.
            pass
        else:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)
