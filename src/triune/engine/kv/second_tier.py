"""Moves blocks between a decoder's cache and files."""

import logging
import threading
import time
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Final

from triune.core.decoder import DecoderExecutable
from triune.engine.kv.disk import DiskTier
from triune.engine.kv.hashes import BlockHash, block_hashes
from triune.engine.kv.pool import KVBlockPool
from triune.engine.sequence import Sequence

_WAIT_SECONDS: Final = 0.01
_BATCH: Final = 32

_CLOSE_SECONDS: Final = 2.0
"""How long, in seconds, the `SecondTier`s of this process may write blocks when they close, all of them together if
they close one after the other. A server that is told to stop must end within a few seconds (`lifetime.ending`), and to
write thousands of blocks takes longer.
"""

_RETURNED: Final = 0.25
"""By how many seconds the remaining time of `_ClosingTime` grows again in each second."""

_log = logging.getLogger(__name__)


class _ClosingTime:
    """The time that the `SecondTier`s of this process may still spend on writing when they close.

    Writing uses it up, and it grows again slowly: models that are unloaded now and then each have enough, while those
    that close right after each other share it. Any thread may use this.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = _CLOSE_SECONDS
        self._looked_at = time.monotonic()

    @property
    def left(self) -> float:
        """How much time is left, in seconds."""
        with self._lock:
            now = time.monotonic()
            self._left = min(_CLOSE_SECONDS, self._left + (now - self._looked_at) * _RETURNED)
            self._looked_at = now
            return self._left

    def spend(self, seconds: float) -> None:
        """Subtract the time that a `SecondTier` spent on writing."""
        with self._lock:
            self._left -= seconds


_closing_time: Final = _ClosingTime()


class SecondTier:
    """Writes evicted blocks to files, and reads the blocks of a new sequence's prefix back. Use it in one thread only.

    A sequence whose blocks are read waits; the others go on. A block is copied out of the cache before the step that
    writes over it, and files are written and read in another thread.

    Attributes:
        disk: the files.
    """

    def __init__(self, decoder: DecoderExecutable, folder: Path, max_bytes: int, others: tuple[str, ...] = ()) -> None:
        """Args:
        decoder: the decoder that owns the cache.
        folder: a folder used only for this model's weights, this decoder's form of cache and its block size.
        max_bytes: the most bytes of all files.
        others: the beginnings of the names of folders beside `folder` that are kept, such as those of the model's other
            units. Other folders there are deleted, unless a process uses them: they belong to other weights.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        self._decoder = decoder
        layout = [(each.shape[1:], each.dtype) for each in decoder.read_blocks([0])]
        self.disk = DiskTier(folder, max_bytes, layout, others)
        self._evicted: list[tuple[int, BlockHash]] = []
        self._missing: dict[BlockHash, list[Sequence]] = {}
        """The hashes of the blocks that are being read, each with the sequences that wait for the block."""

    def evict(self, block: int, block_hash: BlockHash) -> None:
        """Note that the pool gave a block to another sequence, which will overwrite it. The pool calls this as its
        `on_eviction`.
        """
        if not self.disk.has(block_hash):
            self._evicted.append((block, block_hash))

    def save(self) -> None:
        """Copy the evicted blocks from the cache to files. Call this before anything is written to the cache."""
        evicted, self._evicted = self._evicted, []
        for begin in range(0, len(evicted), _BATCH):
            part = evicted[begin : begin + _BATCH]
            arrays = self._decoder.read_blocks([block for block, _ in part])
            for place, (_, block_hash) in enumerate(part):
                # The block is copied, since a view would keep all blocks that were read with it in memory.
                self.disk.store(block_hash, [each[place].copy() for each in arrays])

    def want(self, pool: KVBlockPool, sequence: Sequence) -> None:
        """Read the blocks with which a new sequence begins, if they are only in files. The sequence waits meanwhile."""
        hashes = block_hashes(sequence.tokens[:-1], self._decoder.block_size, sequence.salt)
        for each in hashes[len(pool.find(hashes)) : pool.num_blocks]:
            if each not in self._missing:
                if not self.disk.has(each):
                    break
                self._missing[each] = []
                self.disk.load(each)
            self._missing[each].append(sequence)
            sequence.num_awaited += 1

    def restore(self, pool: KVBlockPool, *, can_wait: bool) -> None:
        """Put blocks that were read into the cache, and release the sequences that waited for them.

        Args:
            pool: the blocks.
            can_wait: whether to wait for a moment for blocks that are being read.
        """
        if not self.disk.is_loading:
            return
        for block_hash, arrays in self.disk.take(_WAIT_SECONDS if can_wait else 0.0):
            blocks = pool.allocate(1) if arrays is not None and not pool.find([block_hash]) else None
            if arrays is not None and blocks is not None:
                # `allocate` may have evicted a block to make room: copy it out before `write_blocks` writes over it.
                self.save()
                self._decoder.write_blocks(blocks, [each[None] for each in arrays])
                pool.publish(blocks[0], block_hash)
                pool.release(blocks)
            for sequence in self._missing.pop(block_hash):
                sequence.num_awaited -= 1

    def forget(self) -> None:
        """Forget the evicted blocks that `save` has not copied yet, and the sequences that wait for blocks. Blocks that
        are being read will still be put into the cache.
        """
        self._evicted.clear()
        for waiting in self._missing.values():
            waiting.clear()

    def close(self, cached: Seq[tuple[int, BlockHash]]) -> None:
        """Write the remaining blocks of the cache, and end the thread.

        Args:
            cached: the blocks and their hashes, the most important first. If there is neither room nor time for all,
                the last ones are not written.
        """
        # No sequence needs the blocks that are still being read: wait until they are read, and drop them.
        while self.disk.is_loading:
            self.disk.take(_WAIT_SECONDS)
        for begin in range(0, len(cached), _BATCH):
            if _closing_time.left <= 0:
                _log.info(
                    "the prefix cache's last %d of %d blocks are not written to files: there are %g s for that",
                    *(len(cached) - begin, len(cached), _CLOSE_SECONDS),
                )
                break
            started = time.monotonic()
            for block, block_hash in cached[begin : begin + _BATCH]:
                self.evict(block, block_hash)
            self.save()
            self.disk.wait_for_room()
            _closing_time.spend(time.monotonic() - started)
        self.disk.close()
