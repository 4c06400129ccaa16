"""Share what a runtime has read of a file among all executables of the file, so that it is in memory once."""

import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

_Key: TypeAlias = tuple[tuple[str, int, int, int, int], ...]


class SharedModels:
    """The models that executables hold at this moment. May be called from any thread.

    A model's file is read again if the size, the modification time or the inode of one of its files has changed.
    """

    def __init__(self, read: Callable[[Path], Any]) -> None:
        """Args:
        read: reads a model from its file.
        """
        self._read = read
        self._lock = threading.Lock()
        self._models: weakref.WeakValueDictionary[_Key, Any] = weakref.WeakValueDictionary()

    def read(self, path: Path, others: Iterable[Path]) -> Any:
        """The model of a file. It must not be changed.

        Args:
            path: the file.
            others: the files with its external weights.

        Raises:
            OSError: a file is gone. The errors of the constructor's `read` are raised too.
        """
        key = _key((path, *others))
        with self._lock:
            known = self._models.get(key)
        if known is not None:
            return known
        model = self._read(path)
        with self._lock:
            return self._models.setdefault(key, model)


def _key(paths: Iterable[Path]) -> _Key:
    stats = ((f"{path.absolute()}", path.stat()) for path in paths)
    return tuple((name, each.st_size, each.st_mtime_ns, each.st_ino, each.st_ctime_ns) for name, each in stats)
