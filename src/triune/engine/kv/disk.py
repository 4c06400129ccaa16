"""Blocks in files: the second tier of the prefix cache, which survives a restart."""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from triune.core.datatypes import Array
from triune.core.threads import start_thread
from triune.engine.kv.block_files import BlockFiles, Layout
from triune.engine.kv.hashes import BlockHash

MAX_PENDING: Final = 64
"""The most blocks in memory that wait to be written, and the most that were read and wait to be taken. Blocks beyond
that are not written, since memory is for the cache itself.
"""

REST_SECONDS: Final = 60.0
"""How long the files are not used after an error of the disk: it may have been full for a moment."""

_FIND, _LOAD, _STORE, _END = 0, 1, 2, 3

_log = logging.getLogger(__name__)


class DiskTier:
    """Stores and loads blocks in its own thread. Its methods must all be called from one other thread.

    Attributes:
        files: the files. Only the thread changes them.
        num_dropped: blocks that were not written because too many waited.
    """

    def __init__(self, folder: Path, max_bytes: int, layout: Layout, others: tuple[str, ...] = ()) -> None:
        """Args:
        folder, max_bytes, layout, others: see `BlockFiles`.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        self.files = BlockFiles(folder, max_bytes, layout, others)
        self._lock = threading.Lock()
        self._pending: dict[BlockHash, Sequence[Array]] = {}
        """The blocks that wait to be written: the arrays of each, by its hash."""
        self._work: queue.PriorityQueue[tuple[int, int, BlockHash, Sequence[Array]]] = queue.PriorityQueue()
        self._loaded: queue.Queue[tuple[BlockHash, Sequence[Array] | None]] = queue.Queue(MAX_PENDING)
        self._has_found = threading.Event()
        self._num_loading = 0
        self._order = 0
        self._off_until = 0.0
        self.num_dropped = 0
        self._put(_FIND, BlockHash(b""), ())
        self._thread = start_thread(self._run, "cache on disk")

    @property
    def is_loading(self) -> bool:
        """Whether blocks were requested that `take` has not returned yet."""
        return self._num_loading > 0

    @property
    def _is_off(self) -> bool:
        return time.monotonic() < self._off_until

    def counts(self) -> dict[str, int]:
        """The numbers of blocks that were stored, loaded, broken and dropped. Any thread may call this."""
        return {
            "stored": self.files.num_stored,
            "loaded": self.files.num_loaded,
            "broken": self.files.num_broken,
            "dropped": self.num_dropped,
        }

    def has(self, block_hash: BlockHash) -> bool:
        """Whether a block is in a file, or waits to be written to one. At first this waits until the files of earlier
        runs are known.
        """
        self._has_found.wait()
        with self._lock:
            # Look at those that wait first: a block is in a file before it stops to wait.
            return (block_hash in self._pending or self.files.has(block_hash)) and not self._is_off

    def store(self, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        """Have the thread write a block, whose arrays have the shapes and types of the layout, unless it is in a file
        already. If too many blocks wait to be written (MAX_PENDING), it is dropped.
        """
        with self._lock:
            if self._is_off or block_hash in self._pending or self.files.has(block_hash):
                return
            if len(self._pending) >= min(MAX_PENDING, self.files.max_files):
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
                self._try(self.files.find, rest_seconds=math.inf)
                self._has_found.set()
            elif kind == _LOAD:
                self._try(partial(self._load, block_hash))
            elif kind == _STORE:
                self._try(partial(self._write, block_hash, arrays))
            self._work.task_done()
            if kind == _END:
                self.files.release()
                return

    def _try(self, work: Callable[[], None], *, rest_seconds: float = REST_SECONDS) -> None:
        """Call `work`. If it raises an OSError, the files are not used for some time."""
        try:
            work()
        except OSError as error:
            self._off_until = time.monotonic() + rest_seconds
            is_last = math.isinf(rest_seconds)
            _log.warning(
                "the prefix cache's files in %s are not used %s: %s; mend that or make room there%s",
                self.files.folder,
                "any more" if is_last else f"for {rest_seconds:g} s",
                error.strerror or error,
                ", and load the model again" if is_last else "",
            )

    def _load(self, block_hash: BlockHash) -> None:
        with self._lock:
            arrays = self._pending.get(block_hash)
        try:
            if arrays is None and self.has(block_hash):
                arrays = self.files.read(block_hash)
        finally:
            self._loaded.put((block_hash, arrays))

    def _write(self, block_hash: BlockHash, arrays: Sequence[Array]) -> None:
        try:
            if not self._is_off:
                self.files.write(block_hash, arrays)
        finally:
            with self._lock:
                self._pending.pop(block_hash, None)
