"""Files of blocks in a folder that several servers may use: they are listed, read, written, and deleted for room."""

import errno
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.core.files import read_file
from triune.engine.kv.folder_lock import FolderHold, FolderLock, remove_unless_held
from triune.engine.kv.hashes import BlockHash

Layout: TypeAlias = Sequence[tuple[tuple[int, ...], np.dtype[np.generic]]]
"""The shape and dtype of each array of a block."""

_CHECKSUM_BYTES: Final = 16
_SUFFIX: Final = ".kv"
_PART_SUFFIX: Final = ".part"
_NO_BLOCK: Final = (errno.EINVAL, errno.EFBIG, errno.EAGAIN, errno.ENXIO)
"""The errors of `read_file` for a pipe, a device, a file that is too large, or an endless file."""

_LIST_SECONDS: Final = 1.0
"""The seconds after which the folder is listed again for files of other servers, while the limit is not reached."""

_SPARE: Final = 32
"""When a folder that several servers fill is full, 1/32 of the allowed number of files is freed at once, so that not
every write lists the folder.
"""

_log = logging.getLogger(__name__)


class BlockFiles:
    """The files of blocks in a folder. One thread finds, reads and writes them; any thread may call `has`.

    A file holds the checksum of its block and of the block's hash, then the arrays. The folder belongs to one model's
    weights, form of cache and block size.

    Attributes:
        folder: the folder.
        max_files: the most files that fit into the limit of bytes.
        num_stored: blocks written.
        num_loaded: blocks read.
        num_broken: files that were deleted because their checksum was wrong.
    """

    def __init__(self, folder: Path, max_bytes: int, layout: Layout, others: tuple[str, ...] = ()) -> None:
        """Args:
        folder: the folder for the files, created if it is missing. Other folders in the same parent are deleted, since
            they belong to other weights, unless another server uses them.
        max_bytes: the most bytes of all files, including files that other servers write. The least recently used files
            are deleted.
        layout: the layout of the blocks.
        others: prefixes of folder names that are not deleted, such as the folders of the model's other units.
        """
        self.folder = folder
        self._changes = FolderLock(folder)
        self._hold = FolderHold(folder)
        self._others = others
        self._layout = layout
        self._file_bytes = _CHECKSUM_BYTES + sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout)
        self.max_files = max_bytes // self._file_bytes
        self._lock = threading.Lock()
        self._files: OrderedDict[BlockHash, None] = OrderedDict()
        """The hashes of the blocks that are in files, the least recently used first."""
        self._num_unseen = 0
        """How many files other servers may have written since the files were last listed."""
        self._listed_at = 0.0
        self.num_stored = self.num_loaded = self.num_broken = 0

    def has(self, block_hash: BlockHash) -> bool:
        """Whether a block is in a file, as far as is known."""
        with self._lock:
            return block_hash in self._files

    def release(self) -> None:
        """Let other servers delete the folder. No call may follow."""
        self._hold.release()

    def find(self) -> None:
        """Find the files of earlier runs. Delete folders of other weights that nobody uses, and the oldest files if all
        files together exceed the limit of bytes.

        Raises:
            OSError: the folder cannot be made, locked, read or changed.
        """
        self._hold.take()
        for other in self.folder.parent.iterdir():
            if other == self.folder or other.name.startswith(self._others):
                continue
            if other.is_dir() and not other.is_symlink():
                remove_unless_held(other)
        with self._changes.changing():
            self._list(is_first=True)
            self._shrink()

    def read(self, block_hash: BlockHash) -> Sequence[Array] | None:
        """Read a block; None if its file is missing, or was broken and is deleted now.

        Raises:
            OSError: the file cannot be read or deleted.
        """
        path = self._path(block_hash)
        try:
            content = read_file(path, self._file_bytes)
            os.utime(path)
        except FileNotFoundError:
            # Another process has deleted the file to make room, so this block is not in a file any more.
            self._forget(block_hash)
            return None
        except OSError as error:
            if error.errno not in _NO_BLOCK:
                raise
            content = b""
        payload = memoryview(content)[_CHECKSUM_BYTES:]
        if len(content) != self._file_bytes or content[:_CHECKSUM_BYTES] != _checksum(block_hash, [payload]):
            self._forget(block_hash)
            self._delete(path, is_broken=True)
            _log.warning("the file %s of the prefix cache is broken; it was deleted", path)
            return None
        with self._lock:
            self._files[block_hash] = None
            self._files.move_to_end(block_hash)
        self.num_loaded += 1
        arrays: list[Array] = []
        begin = 0
        for shape, dtype in self._layout:
            end = begin + int(np.prod(shape)) * dtype.itemsize
            arrays.append(np.frombuffer(payload[begin:end], dtype).reshape(shape))
            begin = end
        return arrays

    def write(self, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        """Write a block, and delete others if there are too many then.

        Raises:
            OSError: the folder cannot be locked, or a file cannot be written or deleted.
        """
        path = self._path(block_hash)
        # The name has this process's id, since another server may write the same block at the same time.
        part = path.with_suffix(f".{os.getpid()}{_PART_SUFFIX}")
        parts = [np.ascontiguousarray(each).view(np.uint8).reshape(-1) for each in arrays]
        try:
            with self._changes.changing() as num_others:
                self._num_unseen += num_others
                is_full = len(self._files) + self._num_unseen >= self.max_files
                has_listed = self._num_unseen > 0 and (is_full or time.monotonic() - self._listed_at > _LIST_SECONDS)
                if has_listed:
                    self._list(is_first=False)
                # Remove the file first. If it is a pipe, opening it would block until another process reads from it.
                part.unlink(missing_ok=True)
                with part.open("xb") as file:
                    file.write(_checksum(block_hash, [each.data for each in parts]))
                    for each in parts:
                        file.write(each.data)
                part.replace(path)
                with self._lock:
                    self._files[block_hash] = None
                # Make room for some more files of all servers, so that the folder need not be listed at each write.
                self._shrink(self.max_files // _SPARE if has_listed else 0)
        except OSError:
            self._delete(part, is_broken=False)
            raise
        self.num_stored += 1

    def _list(self, *, is_first: bool) -> None:
        """List the files, including those of other servers. If `is_first`, delete files that are not blocks,
        such as a half-written file of a killed server.
        """
        found: list[tuple[int, BlockHash]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if not entry.is_file() or path.suffix not in (_SUFFIX, _PART_SUFFIX):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                if path.suffix == _SUFFIX and status.st_size == self._file_bytes and _is_hex(path.stem):
                    found.append((status.st_mtime_ns, BlockHash(bytes.fromhex(path.stem))))
                elif is_first:
                    self._delete(path, is_broken=path.suffix == _SUFFIX)
        with self._lock:
            self._files = OrderedDict.fromkeys(block_hash for _, block_hash in sorted(found))
        self._num_unseen, self._listed_at = 0, time.monotonic()

    def _shrink(self, num_spare: int = 0) -> None:
        """If there are too many files, delete the least recently used, and so many more that `num_spare` have room."""
        most = self.max_files
        while True:
            with self._lock:
                if len(self._files) <= most:
                    return
                most = self.max_files - num_spare
                block_hash, _ = self._files.popitem(last=False)
            self._path(block_hash).unlink(missing_ok=True)

    def _forget(self, block_hash: BlockHash) -> None:
        with self._lock:
            self._files.pop(block_hash, None)

    def _delete(self, path: Path, *, is_broken: bool) -> None:
        self.num_broken += is_broken
        path.unlink(missing_ok=True)

    def _path(self, block_hash: BlockHash) -> Path:
        return self.folder / f"{block_hash.hex()}{_SUFFIX}"


def _checksum(block_hash: BlockHash, parts: Sequence[memoryview]) -> bytes:
    digest = blake2b(block_hash, digest_size=_CHECKSUM_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _is_hex(text: str) -> bool:
    return len(text) == 32 and all(letter in "0123456789abcdef" for letter in text)
