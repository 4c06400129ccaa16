"""Keep cache folders to a limit: the entries that were not used for the longest time are removed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triune.core.byte_settings import CACHE
from triune.core.scratch import HeldFolder
from triune.runtimes.cache_holds import NOTES, changing, held_names, holds_in

MAKING: Final = ".making-"
"""The prefix of folders in which entries are made, and removed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A cache entry: the time of its last use, its path, and its size in bytes."""

    used_ns: int
    path: Path
    num_bytes: int


def sums_of(path: Path) -> Path:
    """The file with the checksums of an entry. Its modification time is the time of the entry's last use."""
    return path.parent / NOTES / f"{path.name}.sums"


def trim(folders: Sequence[Path], most_bytes: int) -> None:
    """Remove entries until the remaining ones take at most `most_bytes`. Entries that a living process uses are kept.

    Problems are logged and raise no error, since the caller does not depend on the removal.

    Args:
        folders: cache folders, which may be missing.
        most_bytes: the limit for all of them together.
    """
    found = sorted(entry for folder in folders for entry in _entries(folder))
    total = sum(entry.num_bytes for entry in found)
    for entry in found:
        if total <= most_bytes:
            return
        try:
            if _remove(entry.path):
                total -= entry.num_bytes
        except OSError as error:
            _log.warning("'%s' in the cache cannot be removed: %s", entry.path, error.strerror or error)
    if total > most_bytes:
        _log.warning(
            "the cache of converted models in %s takes %d bytes, all of which running processes use or cannot remove; "
            "its limit is %d: raise the environment variable %s, or unload models",
            ", ".join(sorted({f"'{folder}'" for folder in folders if folder.exists()})),
            total,
            most_bytes,
            CACHE,
        )


def _entries(folder: Path) -> list[_Entry]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    return [_Entry(_used_ns(path), path, _num_bytes(path)) for path in paths]


def _used_ns(path: Path) -> int:
    for each in (sums_of(path), path):
        try:
            return each.stat().st_mtime_ns
        except OSError:
            continue
    return 0


def _num_bytes(path: Path) -> int:
    """The size of an entry's files, in bytes, without files that another process removes meanwhile."""
    total = 0
    for each in (path, *path.rglob("*")):
        try:
            found = each.lstat()
        except OSError:
            continue
        total += found.st_size
    return total


def _remove(path: Path) -> bool:
    """Remove an entry, unless a living process uses it.

    Raises:
        OSError: it cannot be removed, or the file system has no locks, so that nobody knows who uses it.
    """
    notes = path.parent / NOTES
    holds_in(notes).settle()
    with HeldFolder(path.parent, MAKING) as thrown:
        with changing(notes, is_exclusive=True):
            if path.name in held_names(notes):
                return False
            path.rename(thrown / path.name)
        for each in (sums_of(path), notes / f"{path.name}.lock"):
            each.unlink(missing_ok=True)
    _log.info("'%s' in the cache was not used for the longest time, and is removed: the cache is full", path)
    return True
