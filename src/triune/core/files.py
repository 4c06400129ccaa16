"""Files that others name or lay: only what is a plain file is opened, so that nothing waits for a pipe or a device."""

import errno
import io
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_KINDS: Final[Mapping[str, Callable[[int], bool]]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def what_else(path: Path) -> str | None:
    """What there is where a plain file should be: "a pipe". Links are followed. None for a plain file.

    Raises:
        OSError: there is nothing, or it may not be looked at.
    """
    return _kind_of(path.stat().st_mode)


def open_file(path: Path) -> io.BufferedReader:
    """Open a plain file for reading. Links are followed.

    Raises:
        OSError: it cannot be opened, or is none; its `strerror` says so.
    """
    _require_plain(path.stat().st_mode, path)
    # Another may lie there meanwhile: a pipe without a writer does not hold up whoever opens it so.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_plain(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a plain file, which may have `max_bytes` at most. Links are followed.

    Raises:
        OSError: it cannot be read, is no plain file, or is larger; its `strerror` says so.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Files of /proc say that they are empty.
        content = b"" if size > max_bytes else file.read(max_bytes + 1)
        if max(size, len(content)) > max_bytes:
            size_known = f"{size} bytes" if size > max_bytes else f"more than {max_bytes} bytes"
            raise OSError(errno.EFBIG, f"it has {size_known}; at most {max_bytes} are read", str(path))
        return content


def _kind_of(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return next((kind for kind, is_it in _KINDS.items() if is_it(mode)), "no file")


def _require_plain(mode: int, path: Path) -> None:
    kind = _kind_of(mode)
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
