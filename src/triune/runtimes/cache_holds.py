"""Mark entries of a cache folder as in use, so that no process removes them (`cache_trim`).

Each process has a file with the names of the entries that it uses, and holds a lock on it, which the system releases
when the process ends in any way.
"""

import contextlib
import fcntl
import os
import secrets
import threading
import weakref
from collections import Counter, deque
from collections.abc import Generator
from pathlib import Path
from typing import Final

from triune.core.file_lock import lock_within

NOTES: Final = ".lock"
"""The folder within a cache folder that has the lock files, the checksums of entries, and the names of used entries."""

_USERS: Final = "users"
_CHANGING: Final = "users.lock"
_WAIT_SECONDS: Final = 5.0
"""The longest wait for other processes, which write a few names or rename an entry."""

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

_local: Final = threading.local()
_guard: Final = threading.Lock()
_known: Final = dict[tuple[int, Path], "EntryHolds"]()
_kept: Final = weakref.WeakKeyDictionary[object, list["Hold"]]()
"""The `Hold`s that last until their owner, the key, is freed or given to `let_go`."""

_lasting: Final = dict[tuple[Path, str], "Hold"]()
"""The `Hold` of each entry that this process uses until it ends, by folder and entry name."""


class Hold:
    """Marks an entry as in use while this object lives."""

    def __init__(self, name: str, released: deque[str]) -> None:
        """When this object is freed, `name` is appended to `released`. That is a deque, which needs no lock, since the
        garbage collector may free objects while a lock is held.
        """
        self._name = name
        self._released = released

    def __del__(self) -> None:
        self._released.append(self._name)


class EntryHolds:
    """The entries of one folder that this process uses. Any thread may use this."""

    def __init__(self, notes: Path) -> None:
        """`notes` is the folder of the cache's notes, created when needed."""
        self._notes = notes
        self._lock = threading.Lock()
        self._counts = Counter[str]()
        self._released = deque[str]()
        self._path = notes / _USERS / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._descriptor: int | None = None

    def take(self, name: str) -> Hold:
        """Mark an entry as in use, whether it exists or not.

        Raises:
            OSError: the folder cannot be written to.
        """
        with self._lock, changing(self._notes, is_exclusive=False):
            self._settle()
            self._counts[name] += 1
            self._write()
        return Hold(name, self._released)

    def settle(self) -> None:
        """Write which entries are no longer used. Raises OSError."""
        with self._lock, changing(self._notes, is_exclusive=False):
            if self._released:
                self._settle()
                self._write()

    def _settle(self) -> None:
        while self._released:
            self._counts[self._released.popleft()] -= 1
        self._counts = +self._counts

    def _write(self) -> None:
        if self._descriptor is None or not _is_at(self._path, self._descriptor):
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, _FLAGS, 0o666)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = "\n".join(self._counts).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)


def hold(notes: Path, name: str) -> bool:
    """Mark an entry as in use until this process ends. In the context `collecting`, the mark instead lasts until the
    owner that is given to `keep_for` is freed.

    Returns:
        False if the folder cannot be written to, or its file system has no locks.
    """
    try:
        taken = holds_in(notes).take(name)
    except OSError:
        return False
    collected: list[Hold] | None = getattr(_local, "collected", None)
    if collected is None:
        _lasting.setdefault((notes, name), taken)
    else:
        collected.append(taken)
    return True


def hold_path(path: Path) -> None:
    """Mark the cache entry that contains a file as in use (see `hold`). Does nothing if the file is in no entry."""
    entry = path.parent
    notes = entry.parent / NOTES
    if (notes / f"{entry.name}.sums").is_file():
        hold(notes, entry.name)


@contextlib.contextmanager
def collecting() -> Generator[list[Hold]]:
    """A context in which `hold` puts the `Hold`s of this thread into the list that it yields. They end when the list is
    freed or, after `keep_for`, when the owner is freed.
    """
    outer: list[Hold] | None = getattr(_local, "collected", None)
    collected: list[Hold] = []
    _local.collected = collected
    try:
        yield collected
    finally:
        _local.collected = outer


def keep_for(owner: object, collected: list[Hold]) -> None:
    """Let the `Hold`s in `collected` last until `let_go` is called with `owner`, or `owner` is freed."""
    if collected:
        _kept[owner] = list(collected)
        collected.clear()


def let_go(owner: object) -> None:
    """End the `Hold`s that `keep_for` keeps for `owner`, which is closed. May be called again."""
    _kept.pop(owner, None)


def holds_in(notes: Path) -> EntryHolds:
    """The object that marks entries of one cache for this process; `notes` is the folder NOTES of the cache."""
    with _guard:
        return _known.setdefault((os.getpid(), notes), EntryHolds(notes))


def held_names(notes: Path) -> set[str]:
    """The names of the entries that living processes use. Call this within `changing`.

    Raises:
        OSError: a file cannot be read, or the file system has no locks.
    """
    names: set[str] = set()
    folder = notes / _USERS
    for path in list(folder.iterdir()) if folder.exists() else []:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            names.update(os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode().split("\n"))
        finally:
            os.close(descriptor)
    return names


@contextlib.contextmanager
def changing(notes: Path, *, is_exclusive: bool) -> Generator[None]:
    """A context that holds the lock of the used entries' names. Processes that write their own names share the lock; a
    process that removes entries takes it alone.

    Args:
        notes: the folder of the cache's notes (`NOTES`).
        is_exclusive: whether to take the lock alone.

    Raises:
        TimeoutError: another process, which may have stopped, holds the lock for longer than `_WAIT_SECONDS`.
        OSError: the folder cannot be written to, or the file system has no locks.
    """
    notes.mkdir(parents=True, exist_ok=True)
    path = notes / _CHANGING
    descriptor = os.open(path, _FLAGS, 0o666)
    try:
        lock_within(_WAIT_SECONDS, descriptor, path, is_shared=not is_exclusive)
        yield
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
