"""Decide which tokens the next step computes.

A step has one token of each sequence that decodes, then pieces of prompts, up to a total number of tokens, so that a
long prompt does not delay the answers of others. More urgent sequences come first; `queues` decides which sequence gets
which KV blocks.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Final

from triune.core.clock import Clock
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.power import EFFECTS, Power
from triune.engine.kv.host import HostTier
from triune.engine.kv.pool import KVBlockPool
from triune.engine.memory import Memory
from triune.engine.plan import Piece, Plan
from triune.engine.queues import Queues
from triune.engine.sampling.sampler import FAILED, Sample
from triune.engine.sequence import FinishReason, Sequence
from triune.engine.source import Source
from triune.engine.turns import Turn, find_turns

SCORED_TOKENS: Final = 64
"""The largest number of tokens in a step that belong to prompts whose probabilities are wanted. Each takes a row of
logits, which is 0.6 MB for a vocabulary of 150,000.
"""


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """The limits of a step and of the running sequences.

    Attributes:
        step_tokens: the most tokens of a step.
        sequences: the most sequences that have blocks at a time.
        context_tokens: the most tokens of a sequence, prompt and answer together.
        ageing_seconds: a waiting sequence gains one level of priority each time it has waited this long.
        source_tokens: the largest number of tokens of texts whose encoder output is held for sequences with blocks.
            Each text counts as long as the longest. A single text may have more.
    """

    step_tokens: int = 512
    sequences: int = 64
    context_tokens: int = 1 << 17
    ageing_seconds: float = 10.0
    source_tokens: int = 1 << 17


class Scheduler:
    """Plans steps for the sequences that it was given. Used from one thread."""

    def __init__(
        self,
        pool: KVBlockPool,
        block_size: int,
        clock: Clock,
        limits: SchedulerLimits,
        power: Power | None = None,
        host: HostTier | None = None,
    ) -> None:
        """Args:
        pool: the pool of blocks.
        block_size: the number of tokens in a block.
        clock: the clock that measures how long sequences wait.
        limits: the limits of a step.
        power: the server's power mode, which may lower `step_tokens`; None for full power.
        host: keeps the blocks of preempted sequences in host memory; with None they are dropped and computed again.
        """
        self._power = power
        self._pool = pool
        self._block_size = block_size
        self._clock = clock
        self._limits = limits
        self._queues = Queues(pool, block_size, limits.ageing_seconds, host)
        # Whether a sequence was waiting for blocks when the last plan was made.
        self._lacks_blocks = False

    @property
    def num_waiting(self) -> int:
        """The number of sequences without blocks."""
        return len(self._queues.waiting)

    @property
    def num_running(self) -> int:
        """The number of sequences with blocks."""
        return len(self._queues.running)

    @property
    def num_preempted(self) -> int:
        """How often a sequence was preempted: its blocks were given to others."""
        return self._queues.num_preempted

    @property
    def _step_tokens(self) -> int:
        """The most tokens of a step in the current power mode."""
        share = 1.0 if self._power is None else EFFECTS[self._power.mode].step_share
        return max(1, int(self._limits.step_tokens * share))

    def add(self, sequence: Sequence) -> None:
        """Add a new sequence to the waiting ones.

        Raises:
            InvalidArgumentError: the prompt is empty, or prompt and answer could not fit the context or the cache.
        """
        num_prompt, num_blocks = len(sequence.prompt), self._pool.num_blocks
        longest = num_prompt + sequence.ending.max_tokens
        if not num_prompt:
            raise InvalidArgumentError("the prompt has no token; give at least one")
        if longest > self._limits.context_tokens:
            raise InvalidArgumentError(
                f"the prompt has {num_prompt} tokens and max_tokens is {sequence.ending.max_tokens}, together "
                f"{longest}; that is more than the context of {self._limits.context_tokens}: shorten the prompt, or "
                "ask for fewer tokens"
            )
        # The keys and values of the answer's last token are never needed, so they take no room.
        if (longest - 1) > num_blocks * self._block_size:
            raise InvalidArgumentError(
                f"the prompt has {num_prompt} tokens and max_tokens is {sequence.ending.max_tokens}; the cache of "
                f"{num_blocks} blocks holds {num_blocks * self._block_size} tokens: allow it more memory"
            )
        self._queues.waiting.append(sequence)

    def memories(self) -> dict[Source, Memory]:
        """The encoder's outputs by source, for sequences that have blocks."""
        return {each.source: each.memory for each in self._queues.running if each.source and each.memory}

    def cancel(self, sequence: Sequence, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End a sequence now. Its blocks are free at once; does nothing if it has ended."""
        if sequence.finish_reason is None:
            sequence.finish_reason = reason
        self._queues.remove(sequence)

    def schedule(self) -> Plan:
        """Plan the next step. The plan is empty if no sequence can continue.

        Decoding sequences come first, then sequences whose prompts are being read, then waiting ones, each group in the
        order of urgency. If no block is free, a less urgent sequence is preempted and its blocks are freed.
        """
        plan = self._plan({})
        # `_plan` returns None only while a step runs; else it frees blocks until the plan fits.
        assert plan is not None
        return plan

    def follow(self, running: Plan) -> Plan | None:
        """Plan the step after one that is still being computed, whose tokens are therefore not known yet. See
        `schedule`.

        A sequence that may end in the running step is planned as if it went on, and removed by `Plan.going` if it has
        ended. A sequence that ends with the running step in any case, since it then has its largest number of tokens,
        is not planned.

        Args:
            running: the step that is being computed (see `Plan.gives_one_token_each`).

        Returns:
            the plan; None if there are not enough free blocks. Which sequence to preempt is decided when the tokens are
                known.
        """
        rows = {id(piece): row for row, piece in enumerate(running.choosing)}
        return self._plan({id(piece.sequence): (piece, rows.get(id(piece))) for piece in running.pieces})

    def _plan(self, running: Mapping[int, tuple[Piece, int | None]]) -> Plan | None:
        """Plan a step; None if blocks were missing. `running` has, by id, the sequences that the previous step still
        computes: the piece of each, and the row of the token that it will get.
        """
        queues, now_ns, budget = self._queues, self._clock.now_ns(), _Budget(self._step_tokens)
        turns = self._turns(now_ns)
        if turns and running:
            return None
        for sequence in (each for turn in turns for each in turn.yields):
            queues.preempt(sequence)
        begins = [turn.begins for turn in turns]
        pieces: list[Piece] = []
        planned: set[int] = set()
        going = [
            _piece(each, *running.get(id(each), (None, None))) for each in queues.by_urgency(queues.running, now_ns)
        ]
        for piece in sorted((each for each in going if each is not None), key=lambda each: each.num_tokens > 1):
            sequence, count = piece.sequence, min(budget.room_for(piece.sequence), piece.num_tokens)
            if count == 0 or sequence not in queues.running:
                continue
            if running and not sequence.table.grow(piece.begin + count):
                return None
            if not queues.make_room(sequence, piece.begin + count, planned, now_ns):
                continue
            pieces.append(piece.first(count))
            planned.add(id(sequence))
            budget.take(sequence, count)
        self._lacks_blocks = False
        others = (each for each in queues.by_urgency(queues.waiting, now_ns) if each not in begins)
        for sequence in (*begins, *others):
            if budget.tokens == 0 or len(queues.running) >= self._limits.sequences:
                break
            if sequence.num_awaited:
                continue
            if sequence.num_unread > budget.tokens and any(piece.num_encoded for piece in pieces):
                # A source, the text that an encoder reads for a sequence, is encoded as a whole. If it is longer than a
                # step's token limit, it gets a step of its own.
                break
            if sequence.source and not self._has_room_for(sequence.source, queues.running):
                break
            room = budget.room_for(sequence)
            if not room:
                continue
            count = queues.begin(sequence, room, now_ns)
            if not count:
                self._lacks_blocks = True
                # Do not plan the sequences behind this one. If shorter ones went first, this sequence might wait
                # forever.
                break
            begin = sequence.table.num_tokens
            pieces.append(_whole(sequence, begin).first(count))
            budget.take(sequence, count)
        return Plan(tuple(pieces))

    def _turns(self, now_ns: int) -> Seq[Turn]:
        """The turns that are due: sequences that must give up their blocks so that waiting ones can run."""
        queues = self._queues
        if not queues.waiting or sum(each.num_to_compute for each in queues.running) >= self._step_tokens:
            return ()
        return find_turns(
            queues.by_urgency(queues.waiting, now_ns),
            queues.running,
            lambda sequence: queues.level(sequence, now_ns),
            self._has_room,
        )

    def _has_room(self, sequence: Sequence, begun: Seq[Sequence], gone: Seq[Sequence]) -> bool:
        """Whether a waiting sequence can begin, after the sequences `begun` have begun and the sequences `gone` have
        given up their blocks.
        """
        left = [each for each in (*self._queues.running, *begun) if each not in gone]
        needed = sum(self._num_blocks(each) for each in (sequence, *begun)) + len(left)
        free = self._pool.num_available + sum(len(each.table.blocks) for each in gone)
        return (
            len(left) < self._limits.sequences
            and (needed <= free or not self._lacks_blocks)
            and (not sequence.source or self._has_room_for(sequence.source, left))
        )

    def _num_blocks(self, sequence: Sequence) -> int:
        """The largest number of blocks that the first piece of a sequence takes."""
        return -(-min(self._step_tokens, len(sequence.tokens)) // self._block_size)

    def _has_room_for(self, source: Source, running: Seq[Sequence]) -> bool:
        """Whether one more source fits: the encoder outputs of all running sequences and of this source are padded to
        the longest, and may have at most `source_tokens` tokens.
        """
        lengths = [len(each.source) for each in running]
        return not lengths or (len(lengths) + 1) * max(*lengths, len(source)) <= self._limits.source_tokens

    def extend(self, plan: Plan, drafts: Mapping[Piece, Seq[int]]) -> Plan:
        """Add drafts (proposed tokens) to a step, as far as it has room and free blocks. No sequence is preempted for
        them.

        Drafts that would end the sequence are left out, since nothing is computed after them.

        Args:
            plan: the step.
            drafts: the proposed tokens after some of `plan.choosing`.
        """
        if not drafts:
            return plan
        budget = max(0, self._step_tokens - plan.num_tokens)
        pieces: list[Piece] = []
        for piece in plan.pieces:
            fitting = self._fitting(piece, drafts.get(piece, ()), budget)
            budget -= len(fitting)
            pieces.append(replace(piece, drafts=fitting) if fitting else piece)
        return Plan(tuple(pieces))

    def _fitting(self, piece: Piece, drafts: Seq[int], budget: int) -> tuple[int, ...]:
        sequence, table = piece.sequence, piece.sequence.table
        count = min(len(drafts), budget, sequence.ending.max_tokens - sequence.num_answered - 1)
        stops = (place for place, token in enumerate(drafts[:count]) if token in sequence.ending.stop_tokens)
        count = next(stops, count)
        if count > 0 and not table.grow(piece.end + count):
            count = table.capacity - piece.end
        return tuple(drafts[: max(count, 0)])

    def update(self, plan: Plan, samples: Seq[Seq[Sample]]) -> list[Sequence]:
        """Record the results of a step.

        Args:
            plan: the step that was computed. Sequences that were cancelled meanwhile are left out.
            samples: the tokens chosen after each of `plan.choosing`.

        Returns:
            the sequences that have ended.
        """
        chosen = dict(zip((id(piece) for piece in plan.choosing), samples, strict=True))
        ended: list[Sequence] = []
        for piece in plan.pieces:
            sequence, tokens = piece.sequence, chosen.get(id(piece), ())
            if sequence.finish_reason is not None:
                continue
            for sample in tokens:
                if sample.token == FAILED.token:
                    sequence.finish_reason = FinishReason.ERROR
                    sequence.error = sequence.error or InternalError(
                        "the model's logits hold NaN or infinity, or no token is allowed: the answer cannot go on"
                    )
                else:
                    sequence.append(sample.token)
            if sequence.finish_reason is not FinishReason.ERROR:
                # The keys and values of a chosen token are computed by the step that reads it, so those of the last one
                # are missing.
                num_written = piece.end + max(0, len(tokens) - 1)
                sequence.table.write(sequence.tokens, num_written)
                if piece.drafts:
                    sequence.table.truncate(num_written)
            if sequence.finish_reason is not None:
                self._queues.remove(sequence)
                ended.append(sequence)
        return ended

    def check(self) -> None:
        """Check the invariants of the pool and of the queues. Raises InternalError naming a violated one."""
        self._pool.check()
        self._queues.check()


@dataclass(slots=True)
class _Budget:
    """The tokens that a step has room for.

    Attributes:
        tokens: the number of tokens of any sequence that still fit.
        scored_tokens: the number of prompt tokens with wanted probabilities that still fit.
    """

    tokens: int
    scored_tokens: int = SCORED_TOKENS

    def room_for(self, sequence: Sequence) -> int:
        """The most tokens of a sequence that fit."""
        return min(self.tokens, self.scored_tokens) if sequence.is_scored else self.tokens

    def take(self, sequence: Sequence, count: int) -> None:
        """Subtract `count` tokens of a sequence, and the tokens that an encoder reads for it before."""
        self.tokens = max(0, self.tokens - count - sequence.num_unread)
        if sequence.is_scored:
            self.scored_tokens -= count


def _piece(sequence: Sequence, running: Piece | None, row: int | None) -> Piece | None:
    """The largest piece of a sequence that can be computed next; None if there is none.

    Args:
        sequence: a sequence with blocks.
        running: the sequence's piece in the step that is being computed; None if it has none there.
        row: the row, among those of that step, of the token that `running` will give; None if it gives none.
    """
    if running is None:
        return _whole(sequence, sequence.table.num_tokens)
    if row is None:
        return _whole(sequence, running.end)
    if sequence.num_answered + 1 >= sequence.ending.max_tokens:
        return None
    return Piece(sequence, running.end, running.end + 1, has_logits=True, source=row)


def _whole(sequence: Sequence, begin: int) -> Piece:
    """A piece with all tokens of a sequence from `begin` on. It includes the tokens that an encoder has yet to read."""
    return Piece(sequence, begin, len(sequence.tokens), has_logits=True, num_encoded=sequence.num_unread)
