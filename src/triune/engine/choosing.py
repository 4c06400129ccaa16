"""Choose the tokens that follow a step: draw them from the logits, under each answer's constraint."""

from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from triune.core.decoder import NO_TOKEN, best_tokens
from triune.core.errors import TriuneError, defect_of
from triune.engine.plan import Piece, Plan
from triune.engine.sampling.sampler import FAILED, Sample, sample_row
from triune.engine.sequence import Sequence


def choose(plan: Plan, logits: NDArray[np.float32]) -> list[list[Sample]]:
    """Draw the next tokens of each sequence from logits, and advance each sequence's sampling state and matcher by
    them.

    For each sequence, one token is drawn from each of its rows, in order. Drawing stops at the first token that differs
    from the draft (the guessed token) for which the next row was computed.

    Args:
        plan: the step.
        logits: FP32 [rows, vocabulary]: for each of `plan.choosing` the row after its last token, then one after each
            of its drafts.

    Returns:
        for each of `plan.choosing` the chosen tokens, at least one.
    """

    def draw(rows: NDArray[np.int64], sequences: Seq[Sequence], place: int) -> list[Sample]:
        return _sample(logits if len(rows) == len(logits) else logits[rows], sequences, place)

    return _choose(plan, draw)


def take(plan: Plan, tokens: NDArray[np.int64]) -> list[list[Sample]]:
    """Does the work of `choose` for a plan that needs the most probable tokens only (`Plan.takes_best`). `tokens`:
    INT64 [rows], the most probable token of each row.
    """

    def draw(rows: NDArray[np.int64], sequences: Seq[Sequence], place: int) -> list[Sample]:
        del sequences, place
        return [FAILED if token == NO_TOKEN else Sample(token) for token in tokens[rows].tolist()]

    return _choose(plan, draw)


def _choose(plan: Plan, draw: Callable[[NDArray[np.int64], Seq[Sequence], int], list[Sample]]) -> list[list[Sample]]:
    """Does the work of `choose`. `draw(rows, sequences, place)` returns a token for each of `sequences`. `rows`, INT64
    [sequences], has the index of each sequence's row of logits: the row after its first `place` drafts.
    """
    pieces = plan.choosing
    firsts = np.cumsum([0, *(1 + len(piece.drafts) for piece in pieces)])[:-1]
    chosen: list[list[Sample]] = [[] for _ in pieces]
    going, place = list(range(len(pieces))), 0
    while going:
        samples = draw(firsts[going] + place, [pieces[index].sequence for index in going], place)
        samples = [_taken(pieces[index].sequence, each) for index, each in zip(going, samples, strict=True)]
        for index, each in zip(going, samples, strict=True):
            chosen[index].append(each)
        going = [index for index, each in zip(going, samples, strict=True) if _goes_on(pieces[index], place, each)]
        place += 1
    return chosen


def _taken(sequence: Sequence, chosen: Sample) -> Sample:
    """Advance a sequence's sampling state and constraint by the chosen token, which is not appended yet, and return the
    choice. If this fails, only this sequence fails: the result is FAILED.
    """
    if chosen.token != FAILED.token:
        try:
            sequence.go_on(chosen.token)
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            return _failed(sequence, error)
    return chosen


def _goes_on(piece: Piece, place: int, chosen: Sample) -> bool:
    """Whether the next row of logits is valid: the chosen token equals draft `place`, for which that row was computed,
    and the sequence has not ended.
    """
    return (
        chosen.token != FAILED.token
        and place < len(piece.drafts)
        and chosen.token == piece.drafts[place]
        and not piece.sequence.is_complete
    )


def _sample(logits: NDArray[np.float32], sequences: Seq[Sequence], place: int) -> list[Sample]:
    """Draw a token for each sequence from its row of `logits`, FP32 [sequences, vocabulary]: the row that follows the
    sequence's first `place` drafts.
    """
    samples: list[Sample] = []
    for sequence, row, best in zip(sequences, logits, best_tokens(logits).tolist(), strict=True):
        try:
            samples.append(sample_row(row, best, sequence.sampling, _allowed(sequence, place, row)))
        except BaseException as error:  # noqa: BLE001 - see `_failed`
            samples.append(_failed(sequence, error))
    return samples


def _failed(sequence: Sequence, error: BaseException) -> Sample:
    """Record an error as the end of one sequence, and return FAILED in place of its token. An invalid request, and even
    a defect in the code, does not affect the step's other sequences.
    """
    if not isinstance(error, TriuneError):
        error = defect_of("the next token could not be chosen", error)
    # Drop the traceback, which refers to the sequence and to the logits of the step: they would stay in memory until
    # garbage collection.
    sequence.error = error.with_traceback(None)
    return FAILED


def _allowed(sequence: Sequence, place: int, logits: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The tokens that a sequence's constraint or rules allow after `place` drafts: BOOL [vocabulary]; None if all are
    allowed.
    """
    if sequence.rules is not None:
        return sequence.rules.allowed(logits)
    if sequence.matcher is None:
        return None
    return sequence.matcher.allowed(may_end=sequence.num_answered + place >= sequence.ending.min_tokens)
