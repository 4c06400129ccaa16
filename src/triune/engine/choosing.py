"""Chooses the tokens that follow a step: draws them from the logits, under each answer's constraint."""

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

from triune.core.errors import TriuneError
from triune.engine.sampling.sampler import FAILED, Sample, sample
from triune.engine.scheduler import Plan
from triune.engine.sequence import Sequence


def choose(plan: Plan, logits: NDArray[np.float32]) -> list[list[Sample]]:
    """Choose the next token of each sequence, and have its sampling state and its matcher go on with it.

    Args:
        plan: the step.
        logits: FP32 [rows, vocabulary], a row for each of `plan.choosing`.

    Returns:
        for each of `plan.choosing` the tokens chosen.
    """
    sequences = [piece.sequence for piece in plan.choosing]
    chosen = _sample(logits, sequences) if sequences else []
    for sequence, each in zip(sequences, chosen, strict=True):
        if each.token != FAILED.token:
            sequence.go_on(each.token)
    return [[each] for each in chosen]


def _sample(logits: NDArray[np.float32], sequences: Seq[Sequence]) -> list[Sample]:
    masks = [_allowed(sequence, logits.shape[1]) for sequence in sequences]
    return sample(logits, [sequence.sampling for sequence in sequences], masks)


def _allowed(sequence: Sequence, vocab_size: int) -> NDArray[np.bool_] | None:
    """The tokens that a sequence's constraint allows; none if that cannot be said, which fails the sequence."""
    if sequence.matcher is None:
        return None
    try:
        return sequence.matcher.allowed(may_end=sequence.num_answered >= sequence.ending.min_tokens)
    except TriuneError as error:
        sequence.error = error
        return np.zeros(vocab_size, np.bool_)
