"""Checksums of the files of a cache entry, which reveal truncated, changed or missing files."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from triune.core.files import open_file, read_file

_LARGEST_BYTES = 1 << 26

Sums: TypeAlias = Mapping[str, tuple[int, str]]
"""The size in bytes and the SHA-256 of each file of a cache entry, by its path relative to the entry. If the entry is a
file itself, its path is "".
"""


def checksums_of(entry: Path) -> Sums:
    """The size and SHA-256 of each file of an entry, which is a folder or a file. Raises OSError."""
    return {name: ((entry / name).stat().st_size, _digest(entry / name)) for name in _files(entry)}


def write_checksums(sums: Sums, target: Path) -> None:
    """Write the checksums to the file `target`, atomically. Raises OSError."""
    written = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}")
    written.write_text(json.dumps(sums))
    written.replace(target)


def what_is_wrong(entry: Path, sums: Path) -> str | None:
    """A text that says how an entry differs from the checksums in the file `sums`; None if it does not. Additional
    files are ignored.
    """
    try:
        noted = cast("dict[str, Any]", json.loads(read_file(sums, _LARGEST_BYTES)))
        for name, (size, _) in noted.items():
            found = (entry / name).stat().st_size
            if found != size:
                return f"'{name or entry.name}' has {found} bytes, and had {size}"
        for name, (_, digest) in noted.items():
            if _digest(entry / name) != digest:
                return f"'{name or entry.name}' was changed"
    except OSError as error:
        return f"{error.filename or sums} cannot be read: {error.strerror or error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"'{sums.name}' is damaged itself: {error}"
    return None if noted or entry.is_dir() else "it is empty"


def _files(entry: Path) -> list[str]:
    if not entry.is_dir():
        return [""]
    return sorted(each.relative_to(entry).as_posix() for each in entry.rglob("*") if each.is_file())


def _digest(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
