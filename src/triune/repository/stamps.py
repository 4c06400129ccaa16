"""What a model's folder looked like: whether anything in it has changed, by content, not by clocks."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from triune.repository.layout import CONFIG_FILENAME, CONFIGS_FOLDER, is_version

_BLOCK_BYTES = 1 << 20

_MAX_DIGESTED_BYTES = 4 << 30
"""A larger file is known by its inode and its time: reading it would take longer than loading it again."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file looked like. Equal stamps mean the same content.

    Attributes:
        num_bytes: its size.
        digest: of its content; of its inode and its time where the content is not read.
        mtime_ns, inode: by these a file is known not to have changed without another look into it.
    """

    num_bytes: int
    digest: str
    mtime_ns: int = field(compare=False)
    inode: int = field(compare=False)


FileStamps: TypeAlias = Mapping[str, FileStamp]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a model's folder looked like. Equal stamps mean that nothing was changed since.

    Attributes:
        files: those outside the version folders, by path.
        versions: the same for each version's folder.
    """

    files: FileStamps = field(default_factory=dict[str, FileStamp])
    versions: Mapping[int, FileStamps] = field(default_factory=dict[int, FileStamps])

    def companions(self) -> FileStamps:
        """What all versions share, labels and warm-up data for example, less the configs."""
        return {
            path: each
            for path, each in self.files.items()
            if path != CONFIG_FILENAME and not path.startswith(f"{CONFIGS_FOLDER}/")
        }

    def config_times(self) -> dict[str, int]:
        """When each of the configs was written, in nanoseconds."""
        others = self.companions()
        return {path: each.mtime_ns for path, each in self.files.items() if path not in others}


def stamp(folder: Path, known: Stamp | None = None) -> Stamp:
    """Look at a model's folder. Hidden files and editors' backups (`name~`) do not count.

    Args:
        folder: the model's folder.
        known: an earlier stamp; files whose size, time and inode are as they were are not read again.
    """
    files: dict[str, FileStamp] = {}
    versions: dict[int, dict[str, FileStamp]] = {}
    seen: set[str] = set()
    before = known or Stamp()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # A link to a folder above would lead round and round.
        seen.add(os.path.realpath(parent))
        folders[:] = [
            each
            for each in sorted(folders)
            if not each.startswith(".") and os.path.realpath(f"{parent}/{each}") not in seen
        ]
        place = Path(parent).relative_to(folder)
        version = int(place.parts[0]) if place.parts and is_version(place.parts[0]) else None
        target = files if version is None else versions.setdefault(version, {})
        old = before.files if version is None else before.versions.get(version, {})
        for name in names:
            if name.startswith(".") or name.endswith("~"):
                continue
            path = str(place / name)
            try:
                target[path] = _stamp_file(Path(parent) / name, old.get(path))
            except OSError:
                # Removed between the listing and the look: gone, as far as a stamp is concerned.
                continue
    return Stamp(files, versions)


def _stamp_file(path: Path, known: FileStamp | None) -> FileStamp:
    status = path.stat()
    looks = (status.st_size, status.st_mtime_ns, status.st_ino)
    if known is not None and looks == (known.num_bytes, known.mtime_ns, known.inode):
        return known
    # The time was taken before the content: what is written meanwhile is seen at the next look.
    digest = f"{status.st_mtime_ns} {status.st_ino}"
    if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_DIGESTED_BYTES:
        digest = _digest(path, status.st_size) or digest
    return FileStamp(status.st_size, digest, status.st_mtime_ns, status.st_ino)


def _digest(path: Path, num_bytes: int) -> str | None:
    """SHA-256 of a file's first `num_bytes`, as many as it was said to have; None if it may not be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            left = num_bytes
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                digest.update(block)
                left -= len(block)
    except OSError:
        return None
    return digest.hexdigest()
