"""Keeps keys and values of preempted sequences in host memory."""

import logging
from collections.abc import Callable, Collection
from typing import Final

from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.errors import InternalError, TriuneError
from triune.engine.moving.blocks import copied_out
from triune.engine.moving.state import KeysAndValues
from triune.engine.sequence import Sequence

_WEIGHT: Final = 0.2
"""The weight of a new measurement in the moving average."""

_LEAST_TOKENS: Final = 16
"""Steps that read fewer tokens of prompts are not measured: they say little about the time that a token takes."""

_log = logging.getLogger(__name__)


class HostTier:
    """Copies the blocks of a preempted sequence out of the cache, and back when it goes on. Used from one thread.

    This is done if copies were measured to be faster than computing the tokens again, and up to a limit of memory.

    Attributes:
        num_moved_out: the number of sequences whose blocks were copied out.
        num_moved_in: the number of sequences whose blocks were copied back.
    """

    def __init__(
        self, decoder: DecoderExecutable, max_bytes: int, clock: Clock, before_writing: Callable[[], None]
    ) -> None:
        """Args:
        decoder: the decoder that owns the cache.
        max_bytes: the most memory for all sequences, in bytes.
        clock: the clock that measures the copies.
        before_writing: called before blocks of the cache are written.
        """
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._clock = clock
        self._before_writing = before_writing
        self._held: dict[Sequence, KeysAndValues] = {}
        self._num_bytes = 0
        self._copy_ns = 0.0
        self._compute_ns = 0.0
        self.num_moved_out = 0
        self.num_moved_in = 0

    @property
    def pays(self) -> bool:
        """Whether copies are faster than computing again, by the measurements so far; True before the first ones."""
        return not self._compute_ns or self._copy_ns < self._compute_ns

    def observe(self, num_tokens: int, duration_ns: int) -> None:
        """Record how long it took to compute `num_tokens` tokens of prompts."""
        if num_tokens >= _LEAST_TOKENS:
            self._compute_ns = _mean(self._compute_ns, duration_ns / num_tokens)

    def take(self, sequence: Sequence) -> None:
        """Copy a sequence's blocks to host memory before they are freed. Does nothing if computing them again is
        faster, or if the memory limit would be exceeded.
        """
        num_tokens = sequence.table.num_tokens
        num_bytes = len(sequence.table.blocks) * self._decoder.block_bytes
        if not num_tokens or not self.pays or self._num_bytes + num_bytes > self._max_bytes:
            return
        begun_ns = self._clock.now_ns()
        try:
            held = copied_out(self._decoder, sequence.table.blocks, num_tokens, self._decoder.cache_form)
        except TriuneError as error:
            _log.warning("keys and values cannot be copied out of the cache, and are computed again: %s", error)
            return
        # The time of this copy counts twice, for the copy to host memory and for the later copy back.
        self._copy_ns = _mean(self._copy_ns, 2 * (self._clock.now_ns() - begun_ns) / num_tokens)
        self._held[sequence] = held
        self._num_bytes += held.num_bytes
        self.num_moved_out += 1

    def num_tokens(self, sequence: Sequence) -> int:
        """The number of tokens of a sequence whose keys and values are in host memory."""
        held = self._held.get(sequence)
        return held.num_tokens if held is not None else 0

    def give(self, sequence: Sequence) -> None:
        """Write keys and values back to a sequence's blocks, which have room for them, and drop the copy in host
        memory.

        Blocks that the sequence shares with the prefix cache are not written. If the decoder fails, the tokens are
        computed again.
        """
        held, table = self._held[sequence], sequence.table
        self.forget(sequence)
        size = self._decoder.block_size
        first, last = table.num_tokens // size, -(-held.num_tokens // size)
        try:
            self._before_writing()
            self._decoder.write_blocks(table.blocks[first:last], [each[first:last] for each in held.arrays])
        except TriuneError as error:
            _log.warning("keys and values cannot be written back to the cache, and are computed again: %s", error)
            return
        table.write(sequence.tokens, held.num_tokens)
        self.num_moved_in += 1

    def forget(self, sequence: Sequence) -> None:
        """Drop the copy of a sequence's blocks, if there is one."""
        held = self._held.pop(sequence, None)
        if held is not None:
            self._num_bytes -= held.num_bytes

    def check(self, waiting: Collection[Sequence]) -> None:
        """Verify that only sequences in `waiting` are held, and that their bytes are counted correctly. Raises
        InternalError.
        """
        if not self._held.keys() <= set(waiting):
            raise InternalError("keys and values are held of a sequence that does not wait")
        if self._num_bytes != sum(each.num_bytes for each in self._held.values()):
            raise InternalError("the bytes of keys and values beside the cache are counted wrong")


def _mean(mean: float, value: float) -> float:
    return value if not mean else mean + _WEIGHT * (value - mean)
