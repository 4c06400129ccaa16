"""The plan of a step: pieces of sequences, packed one after another."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import DecoderStep
from triune.core.energy import Phase, Share
from triune.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence in a step.

    Keys and values of drafts are written after those of the sequence's tokens. The next step overwrites those of wrong
    drafts.

    Attributes:
        sequence: the sequence.
        begin: the number of the sequence's tokens that are in the cache before the step.
        end: the number of the sequence's tokens that are in the cache after the step.
        has_logits: whether the piece ends with the sequence's last token, so that the next token can be chosen.
        drafts: the proposed tokens that may follow (speculative decoding).
        source: if the previous step still computes the piece's only token, the token's row in that step; None if the
            tokens are known.
        num_encoded: the number of tokens that the encoder reads for the sequence before the step.
    """

    sequence: Sequence
    begin: int
    end: int
    has_logits: bool
    drafts: tuple[int, ...] = ()
    source: int | None = None
    num_encoded: int = 0

    @property
    def num_tokens(self) -> int:
        """The number of tokens that the step computes for the piece, drafts included."""
        return self.end - self.begin + len(self.drafts)

    @property
    def token_ids(self) -> Seq[int]:
        """The token ids; 0 for a token that is not known yet."""
        return (0,) if self.source is not None else (*self.sequence.tokens[self.begin : self.end], *self.drafts)

    @property
    def scored(self) -> range:
        """The positions of the piece's tokens after which the probability of the prompt's next token is recorded."""
        scores = self.sequence.scores
        return range(0) if scores is None else scores.unread(self.begin, self.end)

    def first(self, count: int) -> "Piece":
        """The first `count` tokens of the piece, which must have no drafts."""
        if count == self.num_tokens:
            return self
        return Piece(self.sequence, self.begin, self.begin + count, False, num_encoded=self.num_encoded)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a step.

    Attributes:
        pieces: the pieces of sequences that it computes, in the order of the packed tokens.
        choosing: the pieces after which a token is chosen, in the order of the logits.
    """

    pieces: tuple[Piece, ...]
    choosing: tuple[Piece, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Find the pieces after which a token is chosen."""
        object.__setattr__(self, "choosing", tuple(piece for piece in self.pieces if piece.has_logits))

    @property
    def takes_best(self) -> bool:
        """Whether each token to be chosen is the most probable one and no probabilities are wanted: then no logits are
        needed.
        """
        return all(piece.sequence.takes_best for piece in self.choosing) and not any(
            piece.scored for piece in self.pieces
        )

    @property
    def num_going(self) -> int:
        """The number of sequences for which the step computes only the last token and its drafts."""
        return sum(piece.end - piece.begin == 1 for piece in self.pieces)

    @property
    def num_read(self) -> int:
        """The number of the step's tokens besides those of sequences that compute only their last token and drafts
        (`num_going`): tokens of prompts, of answers that are computed again, and of texts that an encoder reads.
        """
        num_encoded = sum(piece.num_encoded for piece in self.pieces)
        return num_encoded + sum(piece.num_tokens for piece in self.pieces if piece.end - piece.begin > 1)

    @property
    def num_tokens(self) -> int:
        """The number of tokens of the step."""
        return sum(piece.num_tokens for piece in self.pieces)

    @property
    def gives_one_token_each(self) -> bool:
        """Whether the step is certain to give exactly one token for each sequence whose prompt has been read: then no
        guesses are checked.
        """
        return self.takes_best and not any(piece.drafts for piece in self.pieces)

    def going(self) -> "Plan":
        """Return the plan without pieces of sequences that have ended."""
        return Plan(tuple(piece for piece in self.pieces if piece.sequence.finish_reason is None))

    def shares(self) -> list[Share]:
        """How the energy of the step is divided among sequences: by their tokens, separately for prompts and answers.

        A token of a prompt that is computed again, after a preemption, counts as one of the prompt.
        """
        total = self.num_tokens + sum(piece.num_encoded for piece in self.pieces)
        shares: list[Share] = []
        for piece in self.pieces:
            sequence = piece.sequence
            num_prompt = max(0, min(piece.end, len(sequence.prompt)) - piece.begin)
            if num_prompt + piece.num_encoded:
                shares.append(Share(Phase.PREFILL, (num_prompt + piece.num_encoded) / total, sequence.bill))
            if piece.num_tokens > num_prompt:
                shares.append(Share(Phase.DECODE, (piece.num_tokens - num_prompt) / total, sequence.bill))
        return shares

    def step(self) -> DecoderStep:
        """The arrays for the decoder. The first rows of logits are for the pieces of `choosing`: for each piece, the
        row of its last token and of each of its drafts. Then follow the rows of the `scored` tokens of each piece.
        """
        counts = [piece.num_tokens for piece in self.pieces]
        begins = np.cumsum([0, *counts], dtype=np.int32)
        tables = [piece.sequence.table.blocks for piece in self.pieces]
        adapters = [piece.sequence.adapter for piece in self.pieces]
        sources = [-1 if piece.source is None else piece.source for piece in self.pieces]
        return DecoderStep(
            input_ids=np.fromiter(
                chain.from_iterable(piece.token_ids for piece in self.pieces),
                np.int64,
            ),
            position_ids=np.fromiter(
                chain.from_iterable(range(piece.begin, piece.begin + piece.num_tokens) for piece in self.pieces),
                np.int64,
            ),
            past_lengths=np.array([piece.begin for piece in self.pieces], np.int32),
            subsequence_begins=begins,
            block_indices=np.fromiter(chain.from_iterable(tables), np.int32),
            block_indices_begins=np.cumsum([0, *map(len, tables)], dtype=np.int32),
            logits_indices=np.fromiter(chain(self._chosen_rows(begins), self._scored_rows(begins)), np.int64),
            adapters=np.repeat(np.array(adapters, np.int64), counts) if any(adapters) else None,
            sources=np.repeat(np.array(sources, np.int64), counts) if max(sources, default=-1) >= 0 else None,
        )

    def _chosen_rows(self, begins: NDArray[np.int32]) -> Iterator[int]:
        """The rows, among the packed tokens, after which tokens are chosen. `begins` is INT32 [pieces + 1], the row at
        which each piece begins.
        """
        for piece, end in zip(self.pieces, begins[1:].tolist(), strict=True):
            if piece.has_logits:
                yield from range(end - 1 - len(piece.drafts), end)

    def _scored_rows(self, begins: NDArray[np.int32]) -> Iterator[int]:
        """The rows, among the packed tokens, after which the prompt's next token gets its probability. `begins` is
        INT32 [pieces + 1], the row at which each piece begins.
        """
        for piece, begin in zip(self.pieces, begins.tolist(), strict=False):
            for place in piece.scored:
                yield begin + place - piece.begin
