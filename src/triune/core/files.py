"""Reads files that users name or put into folders: only regular ones, since reading a pipe or a device can block.
Writes files so that others never read a part.
"""

import errno
import io
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_KINDS: Final[Mapping[str, Callable[[int], bool]]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}

_MOST_UNSIZED_BYTES = 1 << 20
"""The limit for a file that reports no size."""


class _NonBlockingFile(io.FileIO):
    """A regular file that is read without blocking. Some files of the system, such as /proc/kmsg, would block forever,
    since they have no data and no end.
    """

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        num_bytes = super().readinto(buffer)
        if num_bytes is None:
            raise self._has_no_end()
        return num_bytes

    def readall(self) -> bytes:
        # A cast, since the type stub does not say that `readall` may return None.
        content = cast("bytes | None", super().readall())
        if content is None:
            raise self._has_no_end()
        return content

    def _has_no_end(self) -> OSError:
        return OSError(errno.EAGAIN, "it gives nothing now, and has no end: it is none that holds data", self.name)


def non_file_kind(path: Path) -> str | None:
    """The kind of `path` if it is not a regular file, such as "a pipe"; None for a regular file. Links are followed.

    Raises:
        OSError: the path does not exist, or its type cannot be read.
    """
    return _kind_of(path.stat().st_mode)


def open_file(path: Path) -> io.BufferedReader:
    """Open a regular file for reading. Links are followed.

    Raises:
        OSError: the file cannot be opened, or is not regular; `strerror` says which.
    """
    _require_plain(path.stat().st_mode, path)
    # The path may have become a pipe. O_NONBLOCK keeps the opening of a pipe that nobody writes to from blocking.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_plain(os.fstat(descriptor).st_mode, path)
        return io.BufferedReader(_NonBlockingFile(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes`. Links are followed.

    Raises:
        OSError: the file cannot be read, is not regular, or is larger; `strerror` says which.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Files in /proc report a size of 0, and some of them have no end: read no more than a limit.
        most = max_bytes if size else min(max_bytes, _MOST_UNSIZED_BYTES)
        content = b"" if size > max_bytes else file.read(most + 1)
        if len(content) > most:
            max_bytes = most
        if max(size, len(content)) > max_bytes:
            size_known = f"{size} bytes" if size > max_bytes else f"more than {max_bytes} bytes"
            raise OSError(errno.EFBIG, f"it has {size_known}; at most {max_bytes} are read", str(path))
        return content


def replace_file(path: Path, content: str) -> None:
    """Write a text file, whose folder is created. Others read the old content or the new one, and never a part.

    Raises:
        OSError: the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _kind_of(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return next((kind for kind, is_it in _KINDS.items() if is_it(mode)), "no file")


def _require_plain(mode: int, path: Path) -> None:
    kind = _kind_of(mode)
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
