"""Temporary folders. If a process is killed, another process removes its folders.

A process holds a file lock on each of its folders. The system releases the lock when the process ends in any way.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Final

PREFIX: Final = "triune-held-"
"""The prefix of the names of held folders in the system's temporary folder."""

_MAX_TRIES = 100
_AGAIN_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.01

_held: Final = set["HeldFolder"]()
"""The folders of this process that are not removed yet."""

_ending: Final = threading.Event()
"""Set when this process ends: no folder is made any more."""

_making: Final = threading.Lock()
"""Held while a folder is made and added to `_held`."""


class HeldFolder:
    """A new folder that only this user can read, locked until it is removed.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        """Args:
        parent: the folder to create it in; None takes the system's temporary folder.
        prefix: the beginning of the folder's name.

        Raises:
            OSError: the folder cannot be created, or this process is ending (`remove_held`).
        """
        for _ in range(_MAX_TRIES):
            with _making:
                if _ending.is_set():
                    raise OSError(errno.ESHUTDOWN, "this process is ending, and makes no temporary folder")
                self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
                # Try another folder if `sweep` in another process removes this one before it is locked.
                try:
                    self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                if _try_lock(self._lock, without_locks=True) and self.path.exists():
                    _held.add(self)
                    return
                os.close(self._lock)
        raise FileExistsError(f"no folder stays that is made in {parent}: something removes them")

    def restore(self) -> None:
        """Make the folder again, empty, if something has removed it, such as a cleaner of old temporary files.

        Raises:
            OSError: it cannot be made, or its path leads to something else now.
        """
        with _making:
            if self._lock < 0 or _ending.is_set() or self._is_there():
                return
            self.path.mkdir(mode=0o700)
            lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            _try_lock(lock, without_locks=True)
            os.close(self._lock)
            self._lock = lock

    def _is_there(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(self.path.lstat(), os.fstat(self._lock))
        return False

    def remove(self) -> None:
        """Remove the folder and its content as far as possible. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        _held.discard(self)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def remove_held() -> None:
    """Remove all folders that this process holds (`HeldFolder`), and let no more be made.

    Call this if the process ends while threads still run: they are ended before they can remove their folders, and one
    of them may be about to start a new process in the place of one that was killed.

    What another thread or a killed process changes meanwhile may keep a folder from being removed. The removal of such
    a folder is repeated for half a second (`_AGAIN_SECONDS`).
    """
    with _making:
        _ending.set()
    held = list(_held)
    for each in held:
        each.remove()
    until = time.monotonic() + _AGAIN_SECONDS
    while (left := [each.path for each in held if each.path.exists()]) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        for path in left:
            shutil.rmtree(path, ignore_errors=True)


def renew_held() -> None:
    """Set the access times of all folders that this process holds, and of what is in them, to now, since many systems
    remove temporary files that nobody has used for some days. Folders that were removed are made again. May block.
    """
    for each in list(_held):
        with contextlib.suppress(OSError):
            each.restore()
        for place, _, files in os.walk(each.path):
            for path in (Path(place), *(Path(place, name) for name in files)):
                with contextlib.suppress(OSError):
                    os.utime(path, ns=(time.time_ns(), path.lstat().st_mtime_ns), follow_symlinks=False)


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove the folders in `parent` whose processes have ended. Folders of other users, and folders on file systems
    without locks, are not touched.
    """
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                _remove_if_free(Path(entry.path))


@contextlib.contextmanager
def own_temporary_folder() -> Generator[None]:
    """Put all temporary files, including those of libraries, into one folder that is removed when the process ends.

    If that folder cannot be created, the files go to the system's temporary folder. Within this context, the first
    SIGTERM or SIGHUP raises SystemExit in the main thread, so that all contexts remove their folders; the same signal
    ends the process at once when it comes again.
    """
    with _unwound_by_signals(), _own_temporary_folder():
        yield


@contextlib.contextmanager
def _unwound_by_signals() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Handle only signals that still have their default action, not those that are ignored (SIGHUP by nohup) or that the
    # caller handles.
    taken = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in taken:
        signal.signal(each, _unwind)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)


def _unwind(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the program with the exit code that a shell gives for the signal."""
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


@contextlib.contextmanager
def _own_temporary_folder() -> Generator[None]:
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        sweep(Path(tempfile.gettempdir()))
        held = HeldFolder()
    except OSError:
        yield
        return
    tempfile.tempdir = os.environ["TMPDIR"] = str(held.path)
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[1]
        held.remove()


def _remove_if_free(path: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            # Where there are no locks, the folder may be that of a running process.
            if _try_lock(lock, without_locks=False):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def _try_lock(descriptor: int, *, without_locks: bool) -> bool:
    """Lock a folder for this process.

    Args:
        descriptor: the open folder.
        without_locks: the answer if the folder's file system has no locks.

    Returns:
        whether this process holds the lock; False if another process does.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True
