"""Blocks in files: the second tier of the prefix cache, which survives a restart."""

import errno
import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.core.files import read_file
from triune.core.threads import start_thread
from triune.engine.kv.folder_lock import FolderHold, FolderLock, remove_unless_held
from triune.engine.kv.hashes import BlockHash

Layout: TypeAlias = Sequence[tuple[tuple[int, ...], np.dtype[np.generic]]]
"""The shape and dtype of each array of a block."""

MAX_PENDING: Final = 64
"""The most blocks in memory that wait to be written, and the most that were read and wait to be taken. Blocks beyond
that are not written, since memory is for the cache itself.
"""

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

_FIND, _LOAD, _STORE, _END = 0, 1, 2, 3

_log = logging.getLogger(__name__)


class DiskTier:
    """Stores and loads blocks in its own thread. Its methods must all be called from one other thread.

    A file holds the checksum of its block and of the block's hash, then the arrays. The folder belongs to one model's
    weights, form of cache and block size.

    Attributes:
        num_stored: blocks written.
        num_loaded: blocks read.
        num_broken: files that were deleted because their checksum was wrong.
        num_dropped: blocks that were not written because too many waited.
    """

    def __init__(self, folder: Path, max_bytes: int, layout: Layout, others: tuple[str, ...] = ()) -> None:
        """Args:
        folder: the folder for the files, created if it is missing. Other folders in the same parent are deleted, since
            they belong to other weights, unless another server uses them.
        max_bytes: the most bytes of all files, including files that other servers write. The least recently used files
            are deleted.
        layout: the layout of the blocks.
        others: prefixes of folder names that are not deleted, such as the folders of the model's other units.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        self._folder = folder
        self._changes = FolderLock(folder)
        self._hold = FolderHold(folder)
        self._others = others
        self._layout = layout
        self._file_bytes = _CHECKSUM_BYTES + sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout)
        self._max_files = max_bytes // self._file_bytes
        self._lock = threading.Lock()
        self._files: OrderedDict[BlockHash, None] = OrderedDict()
        """The hashes of the blocks that are in files, the least recently used first."""
        self._pending: dict[BlockHash, Sequence[Array]] = {}
        """The blocks that wait to be written: the arrays of each, by its hash."""
        self._work: queue.PriorityQueue[tuple[int, int, BlockHash, Sequence[Array]]] = queue.PriorityQueue()
        self._loaded: queue.Queue[tuple[BlockHash, Sequence[Array] | None]] = queue.Queue(MAX_PENDING)
        self._has_found = threading.Event()
        self._num_loading = 0
        self._num_unseen = 0
        """How many files other servers may have written since the files were last listed."""
        self._listed_at = 0.0
        self._order = 0
        self._is_off = False
        self.num_stored = self.num_loaded = self.num_broken = self.num_dropped = 0
        self._put(_FIND, BlockHash(b""), ())
        self._thread = start_thread(self._run, "cache on disk")

    @property
    def is_loading(self) -> bool:
        """Whether blocks were requested that `take` has not returned yet."""
        return self._num_loading > 0

    def counts(self) -> dict[str, int]:
        """The numbers of blocks that were stored, loaded, broken and dropped. Any thread may call this."""
        return {
            "stored": self.num_stored,
            "loaded": self.num_loaded,
            "broken": self.num_broken,
            "dropped": self.num_dropped,
        }

    def has(self, block_hash: BlockHash) -> bool:
        """Whether a block is in a file, or waits to be written to one. At first this waits until the files of earlier
        runs are known.
        """
        self._has_found.wait()
        with self._lock:
            return (block_hash in self._files or block_hash in self._pending) and not self._is_off

    def store(self, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        """Have the thread write a block, whose arrays have the shapes and types of the layout, unless it is in a file
        already. If too many blocks wait to be written (MAX_PENDING), it is dropped.
        """
        with self._lock:
            if self._is_off or block_hash in self._files or block_hash in self._pending:
                return
            if len(self._pending) >= min(MAX_PENDING, self._max_files):
                self.num_dropped += 1
                return
            self._pending[block_hash] = arrays
        self._put(_STORE, block_hash, arrays)

    def load(self, block_hash: BlockHash) -> None:
        """Begin to read a block. `take` returns it when it has been read."""
        self._num_loading += 1
        self._put(_LOAD, block_hash, ())

    def take(self, seconds: float = 0.0) -> list[tuple[BlockHash, Sequence[Array] | None]]:
        """The blocks that were read since the last call: each with its arrays, or None if its file was missing or
        broken.

        Args:
            seconds: how long to wait for the first block, if none has been read yet.
        """
        found: list[tuple[BlockHash, Sequence[Array] | None]] = []
        while True:
            try:
                found.append(self._loaded.get(block=seconds > 0, timeout=seconds or None))
            except queue.Empty:
                self._num_loading -= len(found)
                return found
            seconds = 0.0

    def wait_for_room(self) -> None:
        """Wait until all blocks that were given to `store` are written."""
        self._work.join()

    def close(self) -> None:
        """Write the waiting blocks, and end the thread. No block may be loading, and no call may follow."""
        self._put(_END, BlockHash(b""), ())
        self._thread.join()

    def _put(self, kind: int, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        self._order += 1
        self._work.put((kind, self._order, block_hash, arrays))

    def _run(self) -> None:
        while True:
            kind, _, block_hash, arrays = self._work.get()
            if kind == _FIND:
                self._try(self._find)
                self._has_found.set()
            elif kind == _LOAD:
                self._try(partial(self._load, block_hash))
            elif kind == _STORE:
                self._try(partial(self._write, block_hash, arrays))
            self._work.task_done()
            if kind == _END:
                self._hold.release()
                return

    def _try(self, work: Callable[[], None]) -> None:
        """Call `work`. If it raises an OSError, the files are not used any more."""
        try:
            work()
        except OSError as error:
            self._is_off = True
            _log.warning(
                "the prefix cache's files in %s are not used any more: %s; mend that or make room there, and load the "
                "model again",
                self._folder,
                error.strerror or error,
            )

    def _find(self) -> None:
        """Find the files of earlier runs. Delete folders of other weights that nobody uses, and the oldest files if all
        files together exceed the limit of bytes.
        """
        self._hold.take()
        for other in self._folder.parent.iterdir():
            if other == self._folder or other.name.startswith(self._others):
                continue
            if other.is_dir() and not other.is_symlink():
                remove_unless_held(other)
        with self._changes.changing():
            self._list(is_first=True)
            self._shrink()

    def _list(self, *, is_first: bool) -> None:
        """List the files, including those of other servers. If `is_first`, delete files that are not blocks,
        such as a half-written file of a killed server.
        """
        found: list[tuple[int, BlockHash]] = []
        with os.scandir(self._folder) as entries:
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

    def _load(self, block_hash: BlockHash) -> None:
        with self._lock:
            arrays = self._pending.get(block_hash)
        try:
            if arrays is None and self.has(block_hash):
                arrays = self._read(block_hash)
        finally:
            self._loaded.put((block_hash, arrays))

    def _read(self, block_hash: BlockHash) -> Sequence[Array] | None:
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

    def _write(self, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        if self._is_off:
            with self._lock:
                self._pending.pop(block_hash, None)
            return
        path = self._path(block_hash)
        # The name has this process's id, since another server may write the same block at the same time.
        part = path.with_suffix(f".{os.getpid()}{_PART_SUFFIX}")
        parts = [np.ascontiguousarray(each).view(np.uint8).reshape(-1) for each in arrays]
        try:
            with self._changes.changing() as num_others:
                self._num_unseen += num_others
                is_full = len(self._files) + self._num_unseen >= self._max_files
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
                self._shrink(self._max_files // _SPARE if has_listed else 0)
        except OSError:
            self._delete(part, is_broken=False)
            raise
        finally:
            with self._lock:
                self._pending.pop(block_hash, None)
        self.num_stored += 1

    def _shrink(self, num_spare: int = 0) -> None:
        """If there are too many files, delete the least recently used, and so many more that `num_spare` have room."""
        most = self._max_files
        while True:
            with self._lock:
                if len(self._files) <= most:
                    return
                most = self._max_files - num_spare
                block_hash, _ = self._files.popitem(last=False)
            self._path(block_hash).unlink(missing_ok=True)

    def _forget(self, block_hash: BlockHash) -> None:
        with self._lock:
            self._files.pop(block_hash, None)

    def _delete(self, path: Path, *, is_broken: bool) -> None:
        self.num_broken += is_broken
        path.unlink(missing_ok=True)

    def _path(self, block_hash: BlockHash) -> Path:
        return self._folder / f"{block_hash.hex()}{_SUFFIX}"


def _checksum(block_hash: BlockHash, parts: Sequence[memoryview]) -> bytes:
    digest = blake2b(block_hash, digest_size=_CHECKSUM_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _is_hex(text: str) -> bool:
    return len(text) == 32 and all(letter in "0123456789abcdef" for letter in text)
