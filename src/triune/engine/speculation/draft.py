"""Speculative decoding by a draft model: a small model that reads the same tokens as the large one, and has its own KV
blocks.
"""

import logging
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderExecutable, DecoderStep, best_tokens
from triune.core.errors import InternalError
from triune.engine.kv.hashes import block_hashes, root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable
from triune.engine.sampling.sampler import FAILED, SamplingState, sample_row
from triune.engine.sequence import Sequence
from triune.engine.structured.matcher import Matcher

_STEP_TOKENS: Final = 512

_log = logging.getLogger(__name__)


class DraftModel:
    """A `Proposer` that guesses what a small model would choose.

    A guess is the token that the small model's logits give for the sequence's own parameters and its next random
    number. The large model draws with the same random number, so the closer their distributions are, the more often
    both choose the same token. LoRA adapters do not change the small model.

    Attributes:
        is_broken: whether the small model has failed. It then makes no further guesses.
    """

    def __init__(self, decoder: DecoderExecutable, context_tokens: int, step_tokens: int = _STEP_TOKENS) -> None:
        """Args:
        decoder: the small model, with the vocabulary of the large one. The caller closes it.
        context_tokens: the largest number of tokens of a sequence that the small model reads; for longer sequences
            nothing is guessed.
        step_tokens: the largest number of tokens that it reads before it guesses. A sequence with more new tokens gets
            no guess in this step.
        """
        self._decoder = decoder
        self._context_tokens = context_tokens
        self._step_tokens = step_tokens
        self._pool = KVBlockPool(decoder.num_blocks)
        self._cursors: dict[Sequence, _Cursor] = {}
        self.is_broken = False

    @property
    def pool(self) -> KVBlockPool:
        """The small model's KV blocks."""
        return self._pool

    def propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        """Implements `Proposer.propose`. A failure of the small model is logged, and affects no answer."""
        if self.is_broken:
            return {}
        try:
            return self._propose(wanted)
        except BaseException:  # noqa: BLE001 - a defect costs guesses, and no answer
            _log.exception("the draft model failed; no tokens are guessed any more until the model is loaded again")
            self.is_broken = True
            for sequence in list(self._cursors):
                self.forget(sequence)
            return {}

    def forget(self, sequence: Sequence) -> None:
        """Implements `Proposer.forget`. Full blocks stay in the small model's prefix cache."""
        cursor = self._cursors.pop(sequence, None)
        if cursor is not None:
            cursor.table.free()

    def reset(self) -> None:
        """Implements `Proposer.reset`. The small model's prefix cache is emptied."""
        self._cursors.clear()
        self._pool = KVBlockPool(self._decoder.num_blocks)

    def check(self) -> None:
        """Implements `Proposer.check`."""
        self._pool.check()
        held = {block for cursor in self._cursors.values() for block in cursor.table.blocks}
        if len(held) != self._pool.num_used:
            raise InternalError(f"{self._pool.num_used} KV blocks of the draft model are used; {len(held)} are held")

    def _propose(self, wanted: Mapping[Sequence, int]) -> Mapping[Sequence, Seq[int]]:
        guesses: list[_Guess] = []
        rows: list[_Row] = []
        budget = self._step_tokens
        for sequence, count in wanted.items():
            cursor = self._cursor(sequence)
            first, last = cursor.num_tokens, min(len(sequence.tokens), cursor.num_tokens + budget)
            is_complete = last == len(sequence.tokens)
            if (
                first == last
                or len(sequence.tokens) + count > self._context_tokens
                or not self._has_room(cursor, last + (count - 1 if is_complete else 0), wanted)
            ):
                continue
            budget -= last - first
            rows.append(_Row(sequence.tokens[first:last], first, cursor.table.blocks, is_complete))
            cursor.num_tokens = last
            if is_complete:
                guesses.append(_Guess(sequence, cursor, count))
        going = guesses
        while rows:
            step = _step(rows)
            if all(each.takes_best for each in going):
                tokens = self._decoder.begin(step).read().tolist()
            else:
                tokens = _drawn(going, self._decoder.run(step))
            going = [each for each, token in zip(going, tokens, strict=True) if each.take(token)]
            rows = [
                _Row(each.tokens[-1:], len(each.sequence.tokens) + len(each.tokens) - 1, each.cursor.table.blocks)
                for each in going
            ]
        for each in guesses:
            # The last guess is left out: no step has computed its keys and values.
            each.cursor.guessed = each.tokens[: len(each.tokens) - 1]
        return {each.sequence: each.tokens for each in guesses if each.tokens}

    def _cursor(self, sequence: Sequence) -> "_Cursor":
        """The draft model's state for a sequence, after wrong guesses were dropped."""
        size = self._decoder.block_size
        cursor = self._cursors.get(sequence)
        if cursor is None:
            cursor = self._cursors[sequence] = _Cursor(BlockTable(self._pool, size, root_hash()))
        if not cursor.table.blocks:
            cursor.guessed = []
            cursor.num_tokens = cursor.table.share(block_hashes(sequence.tokens[:-1], size))
            return cursor
        came = sequence.tokens[cursor.num_tokens :]
        wrong = (at for at, pair in enumerate(zip(cursor.guessed, came, strict=False)) if pair[0] != pair[1])
        num_right = next(wrong, min(len(cursor.guessed), len(came)))
        cursor.num_tokens = min(cursor.num_tokens + num_right, len(sequence.tokens) - 1)
        cursor.guessed = []
        cursor.table.write(sequence.tokens, cursor.num_tokens)
        cursor.table.truncate(cursor.num_tokens)
        return cursor

    def _has_room(self, cursor: "_Cursor", num_tokens: int, wanted: Mapping[Sequence, int]) -> bool:
        """Allocate blocks of the small model's cache for a sequence's first `num_tokens` tokens, and return whether
        there were enough. If there are not, blocks of sequences that want no guesses now (not in `wanted`) are freed
        first.
        """
        if cursor.table.grow(num_tokens):
            return True
        for other in self._cursors.keys() - wanted.keys():
            self.forget(other)
        return cursor.table.grow(num_tokens)


@dataclass(eq=False, slots=True)
class _Cursor:
    """How far the small model has read a sequence.

    Attributes:
        table: the sequence's blocks in the small model's cache.
        num_tokens: the number of the sequence's tokens whose keys and values are in the blocks.
        guessed: the guesses whose keys and values follow those of the tokens in the blocks.
    """

    table: BlockTable
    num_tokens: int = 0
    guessed: list[int] = field(default_factory=list[int])


class _Row(NamedTuple):
    """The tokens of one sequence in a step. Its `past` earlier tokens are in its `blocks`; `has_logits` says whether
    the logits after its last token are needed.
    """

    tokens: Seq[int]
    past: int
    blocks: Seq[int]
    has_logits: bool = True


class _Guess:
    """The state of one sequence while the draft model guesses its next tokens."""

    def __init__(self, sequence: Sequence, cursor: _Cursor, count: int) -> None:
        self.sequence = sequence
        self.cursor = cursor
        self.tokens: list[int] = []
        self.state: SamplingState = sequence.sampling.fork()
        self._matcher: Matcher | None = sequence.matcher.fork() if sequence.matcher is not None else None
        self._count = count

    @property
    def takes_best(self) -> bool:
        """Whether the next token is the one with the largest logit."""
        return self._matcher is None and self.state.takes_best

    def allowed(self) -> NDArray[np.bool_] | None:
        """The tokens that the answer's constraint allows next, BOOL [vocabulary]; None without a constraint."""
        if self._matcher is None:
            return None
        place = self.sequence.num_answered + len(self.tokens)
        return self._matcher.allowed(may_end=place >= self.sequence.ending.min_tokens)

    def take(self, token: int) -> bool:
        """Append a guessed token. Returns whether another guess follows."""
        if token == FAILED.token:
            return False
        self.tokens.append(token)
        if len(self.tokens) == self._count or token in self.sequence.ending.stop_tokens:
            return False
        self.state.append(token)
        if self._matcher is not None:
            self._matcher.accept(token)
            return not self._matcher.is_ended
        return True


def _drawn(guesses: Seq[_Guess], logits: NDArray[np.float32]) -> list[int]:
    """Draw a token for each guess from its row of `logits`, FP32 [guesses, vocabulary]."""
    rows = zip(guesses, logits, best_tokens(logits).tolist(), strict=True)
    return [sample_row(row, best, each.state, each.allowed()).token for each, row, best in rows]


def _step(rows: Seq[_Row]) -> DecoderStep:
    counts = [len(row.tokens) for row in rows]
    begins = np.cumsum([0, *counts], dtype=np.int32)
    ends = zip(rows, begins[1:].tolist(), strict=True)
    return DecoderStep(
        input_ids=np.fromiter(chain.from_iterable(row.tokens for row in rows), np.int64),
        position_ids=np.concatenate([np.arange(row.past, row.past + len(row.tokens)) for row in rows]),
        past_lengths=np.array([row.past for row in rows], np.int32),
        subsequence_begins=begins,
        block_indices=np.fromiter(chain.from_iterable(row.blocks for row in rows), np.int32),
        block_indices_begins=np.cumsum([0, *(len(row.blocks) for row in rows)], dtype=np.int32),
        logits_indices=np.array([end - 1 for row, end in ends if row.has_logits], np.int64),
    )
