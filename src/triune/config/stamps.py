"""Fingerprints (stamps) of a model's folder, by content rather than by time, which tell whether anything changed."""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from triune.config.layout import CONFIG_FILENAME, CONFIGS_FOLDER, is_version
from triune.core.errors import InvalidArgumentError
from triune.core.files import open_file

_BLOCK_BYTES = 1 << 20

_MAX_DIGESTED_BYTES = 4 << 30
"""A file of more bytes is identified by inode and time instead of its content: reading it would take longer than
loading the model again.
"""

_MAX_READ_BYTES = 16 << 30
"""The most bytes that are read for one fingerprint of a folder. Further files are identified by inode and time."""

_MAX_ENTRIES = 100_000
"""The limit for the number of files and folders in a model's folder."""

_MAX_LIST_SECONDS = 60.0
"""The time limit for listing a model's folder."""


def _never_cancel() -> None:
    """The default for `check`: never cancel."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """The fingerprint of a file. Equal stamps mean the same content.

    Attributes:
        num_bytes: its size.
        digest: the hash of its content, or of its inode and time if the content was not read.
        mtime_ns, inode, ctime_ns: its modification time, its inode, and the time when anything of it changed, in
            nanoseconds. If these and the size are unchanged, it is not read again. Copying tools (`rsync --inplace -t`)
            may give changed content the old modification time, but nothing can set `ctime_ns`.
    """

    num_bytes: int
    digest: str
    mtime_ns: int = field(compare=False)
    inode: int = field(compare=False)
    ctime_ns: int = field(compare=False, default=0)


FileStamps: TypeAlias = Mapping[str, FileStamp]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The fingerprint of a model's folder. Equal stamps mean that nothing has changed.

    Attributes:
        files: the files outside the version folders, by path.
        versions: the files in each version's folder, by path, for each version.
    """

    files: FileStamps = field(default_factory=dict[str, FileStamp])
    versions: Mapping[int, FileStamps] = field(default_factory=dict[int, FileStamps])

    @property
    def num_files(self) -> int:
        """The number of files."""
        return len(self.files) + sum(len(each) for each in self.versions.values())

    def companions(self) -> FileStamps:
        """The files that all versions share, such as labels and warm-up data, but not the configs."""
        return {
            path: each
            for path, each in self.files.items()
            if path != CONFIG_FILENAME and not path.startswith(f"{CONFIGS_FOLDER}/")
        }

    def config_times(self) -> dict[str, int]:
        """The modification time of each config, in nanoseconds."""
        others = self.companions()
        return {path: each.mtime_ns for path, each in self.files.items() if path not in others}


def stamp(folder: Path, known: Stamp | None = None, check: Callable[[], object] = _never_cancel) -> Stamp:
    """Compute a folder's fingerprint. Hidden files and backups of editors (`name~`) do not count.

    The whole folder is listed before any file is read. A folder without a version is not a model: its files are not
    read, and their inodes and times are hashed instead.

    Args:
        folder: the model's folder.
        known: an earlier fingerprint. Files with the same size, times and inode are not read again.
        check: a function that is called repeatedly, and raises an error to cancel.

    Raises:
        InvalidArgumentError: the folder has too many files or bytes, or takes too long to list.
    """
    before = known or Stamp()
    places = list(_list(folder, check))
    versions: dict[int, dict[str, FileStamp]] = {}
    for place, _ in places:
        version = _version_of(place)
        if version is not None:
            versions[version] = {}
    look = _FileReader(_MAX_READ_BYTES if versions else 0, check)
    files: dict[str, FileStamp] = {}
    for place, names in places:
        version = _version_of(place)
        target = files if version is None else versions[version]
        old = before.files if version is None else before.versions.get(version, {})
        for name in names:
            path = f"{place}/{name}" if place else name
            try:
                target[path] = look.file(f"{folder}/{path}", old.get(path))
            except OSError:
                # Leave out a file that was removed after the listing.
                continue
    return Stamp(files, versions)


def _version_of(place: str) -> int | None:
    top = place.partition("/")[0]
    return int(top) if is_version(top) else None


def _list(folder: Path, check: Callable[[], object]) -> Iterator[tuple[str, Sequence[str]]]:
    """List the folder and its subfolders.

    The number of entries is limited, since a link may lead to the whole disk.

    Yields:
        the relative path of each ("" for the folder itself), and the names of its files.
    """
    # Remember folders: a link to a parent folder would make this recurse forever.
    seen = {_identity(f"{folder}")}
    places = [""]
    num_entries = 0
    deadline = time.monotonic() + _MAX_LIST_SECONDS
    while places:
        check()
        place = places.pop()
        names: list[str] = []
        inner: list[str] = []
        here = f"{folder}/{place}"
        with contextlib.suppress(OSError), os.scandir(here) as entries:
            for each in entries:
                num_entries += 1
                if num_entries > _MAX_ENTRIES:
                    raise _too_much(folder, f"holds more than {_MAX_ENTRIES} files and folders")
                if not each.name.startswith("."):
                    (inner if _is_folder(each) else names).append(each.name)
        if time.monotonic() > deadline:
            raise _too_much(folder, f"takes more than {_MAX_LIST_SECONDS:g} s to be listed")
        yield place, [name for name in sorted(names) if not name.endswith("~")]
        for name in sorted(inner, reverse=True):
            identity = _identity(f"{here}/{name}")
            if identity not in seen:
                seen.add(identity)
                places.append(f"{place}/{name}" if place else name)


def _too_much(folder: Path, what: str) -> InvalidArgumentError:
    where = f"{folder}"
    if folder.is_symlink():
        where += f", a link to {folder.resolve()},"
    return InvalidArgumentError(f"model folder {where} {what}; keep files that do not belong to the model elsewhere")


class _FileReader:
    """Reads files for one fingerprint, up to a total number of bytes."""

    def __init__(self, left_bytes: int, check: Callable[[], object]) -> None:
        self._left_bytes = left_bytes
        self._check = check

    def file(self, path: str, known: FileStamp | None) -> FileStamp:
        """The fingerprint of a file. Raises OSError if it was removed."""
        self._check()
        status = Path(path).stat()
        current = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        if known is not None and current == (known.num_bytes, known.mtime_ns, known.inode, known.ctime_ns):
            return known
        # If the content is not read, the file is identified by its modification time and inode. `ctime_ns` is left out,
        # since a new hard link to the file changes it.
        digest = f"{status.st_mtime_ns} {status.st_ino}"
        if stat.S_ISREG(status.st_mode) and status.st_size <= min(_MAX_DIGESTED_BYTES, self._left_bytes):
            self._left_bytes -= status.st_size
            digest = _digest(Path(path), status.st_size, self._check) or digest
        return FileStamp(status.st_size, digest, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


def _identity(path: str) -> tuple[int, int] | None:
    """The device and inode of a folder, which identify it by any path; None if it was removed."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # Count an entry that cannot be read, such as a link that leads to itself, as no folder.
        return False


def _digest(path: Path, num_bytes: int, check: Callable[[], object]) -> str | None:
    """The SHA-256 of a file's first `num_bytes`, its size in the listing; None if the file cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            left = num_bytes
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                check()
                digest.update(block)
                left -= len(block)
    except OSError:
        return None
    return digest.hexdigest()
