"""The waiting sequences, and the running ones, which hold KV blocks, sorted by urgency.

A sequence's priority improves with waiting. If no block is free, the least urgent sequence is preempted, and its tokens
are computed again later.
"""

from collections.abc import Iterable

from triune.core.errors import InternalError
from triune.engine.kv.hashes import block_hashes
from triune.engine.kv.host import HostTier
from triune.engine.kv.pool import KVBlockPool
from triune.engine.sequence import Sequence


class Queues:
    """Allocates KV blocks to sequences, and frees them. Used from one thread.

    Attributes:
        waiting: the sequences without blocks.
        running: the sequences with blocks.
        num_preempted: how often a sequence was preempted: its blocks were given to others.
    """

    def __init__(self, pool: KVBlockPool, block_size: int, ageing_seconds: float, host: HostTier | None) -> None:
        """Args:
        pool: the pool of blocks.
        block_size: the number of tokens in a block.
        ageing_seconds: a waiting sequence gains one level of priority each time it has waited this long.
        host: keeps the blocks of preempted sequences in host memory; with None they are dropped and computed again.
        """
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preempted = 0
        self._pool = pool
        self._block_size = block_size
        self._ageing_seconds = ageing_seconds
        self._host = host

    def by_urgency(self, sequences: Iterable[Sequence], now_ns: int) -> list[Sequence]:
        """Sort sequences by `level`, then by the prompt's index in its request, so that requests with many prompts
        alternate with others, then by arrival.
        """

        def urgency(sequence: Sequence) -> tuple[int, int, int]:
            return self.level(sequence, now_ns), sequence.place, sequence.arrived_ns

        return sorted(sequences, key=urgency)

    def level(self, sequence: Sequence, now_ns: int) -> int:
        """A sequence's priority minus one level for each `ageing_seconds` since its arrival. A lower level is more
        urgent.
        """
        return sequence.priority - (now_ns - sequence.arrived_ns) // int(self._ageing_seconds * 1e9)

    def begin(self, sequence: Sequence, budget: int, now_ns: int) -> int:
        """Give a waiting sequence the blocks that the prefix cache has for it, and new ones for its first piece, which
        has at most `budget` tokens.

        Returns:
            the number of tokens of the piece; 0 if there are not enough blocks, so that the sequence must wait.
        """
        table = sequence.table
        # The last token is always computed, since its logits choose the next one, so its block is not looked up. The
        # hashes are kept, since this is called in each step for a sequence that waits for blocks.
        if len(sequence.hashes) != (len(sequence.tokens) - 1) // self._block_size:
            sequence.hashes = block_hashes(sequence.tokens[:-1], self._block_size, sequence.salt)
        num_cached = table.share(sequence.hashes[: sequence.num_sharable // self._block_size])
        num_known = num_cached if self._host is None else max(num_cached, self._host.num_tokens(sequence))
        count = min(budget, len(sequence.tokens) - num_known)
        # Require one more free block for each running sequence, so that a new sequence does not cause a preemption at
        # once.
        if table.num_missing(num_known + count) + len(self.running) > self._pool.num_available and self.running:
            table.free()
            return 0
        if not table.grow(num_known + count):
            table.free()
            return 0
        if self._host is not None:
            if num_known > num_cached:
                self._host.give(sequence)
            self._host.forget(sequence)
        if sequence.started_ns is None:
            sequence.started_ns = now_ns
            sequence.num_cached_tokens = min(num_cached, len(sequence.prompt))
        sequence.num_at_turn = len(sequence.tokens)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return count

    def make_room(self, sequence: Sequence, num_tokens: int, planned: set[int], now_ns: int) -> bool:
        """Allocate blocks for a running sequence; if there are not enough, preempt less urgent sequences, or else this
        sequence itself.

        Sequences that are part of the plan already keep their blocks.

        Args:
            sequence: the sequence, which is not part of the plan.
            num_tokens: the number of its tokens that need room, in total.
            planned: the sequences in the plan, by `id`.
            now_ns: the time.

        Returns:
            whether the sequence has the blocks; False if it was preempted itself.
        """
        while not sequence.table.grow(num_tokens):
            others = [each for each in self.by_urgency(self.running, now_ns) if id(each) not in planned]
            victim = others[-1]
            self.preempt(victim)
            if victim is sequence:
                return False
        return True

    def preempt(self, sequence: Sequence) -> None:
        """Preempt a sequence: free its blocks, and let it wait. Its tokens are computed again, unless they are in the
        prefix cache or were copied to host memory.
        """
        if self._host is not None:
            self._host.take(sequence)
        sequence.table.free()
        sequence.forget_source()
        sequence.num_preemptions += 1
        self.num_preempted += 1
        self.running.remove(sequence)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that has ended from both queues. Its blocks are free at once."""
        for queue in (self.waiting, self.running):
            if sequence in queue:
                queue.remove(sequence)
        if self._host is not None:
            self._host.forget(sequence)
        sequence.table.free()
        sequence.forget_source()

    def check(self) -> None:
        """Check the invariants of the queues. Raises InternalError naming a violated one."""
        if self._host is not None:
            self._host.check(self.waiting)
        if any(sequence.table.blocks for sequence in self.waiting):
            raise InternalError("a waiting sequence holds KV blocks")
        if any(sequence.source and sequence.memory for sequence in self.waiting):
            raise InternalError("a waiting sequence holds what the encoder gave for it")
        if len({id(each) for each in (*self.waiting, *self.running)}) != len(self.waiting) + len(self.running):
            raise InternalError("a sequence is in two queues")
        held = {block for sequence in self.running for block in sequence.table.blocks}
        if len(held) != self._pool.num_used:
            raise InternalError(f"{self._pool.num_used} KV blocks are used, and running sequences hold {len(held)}")
