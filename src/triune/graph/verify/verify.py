"""Run two forms of a model on the same sets of inputs, and compare their outputs."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet
from triune.graph.verify.onnx_model import OnnxModel
from triune.graph.verify.verdict import Answers, OutputVerdict

Compute: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Computes outputs from inputs, both by the source's names."""

_SECONDS = 20.0
"""No further set is begun after this time, in seconds: a few sets suffice for large models."""


def verify(
    sets: Sequence[InputSet],
    source: Compute,
    result: Compute,
    model: OnnxModel,
    tolerance: float,
    *,
    otherwise: Sequence[InputSet] = (),
) -> list[OutputVerdict]:
    """Compare the outputs of a model and of its conversion.

    What two runs of a source that draws random numbers give different answers for is random: its verdict is unknown.

    Args:
        sets: sets of inputs. A set that the source rejects, for instance an index out of range, is skipped.
        source: runs the model whose answers are right.
        result: runs the conversion that is judged.
        model: the one of the two that is ONNX; an error within ONNX Runtime's own uncertainty is not a fault.
        tolerance: the allowed error of floats, relative to an output's largest value; integers and booleans must be
        equal.
        otherwise: further sets, for a source that rejects all of the others.

    Returns:
        A verdict for each output of the source.

    Raises:
        UnsupportedError: the source rejects all sets, or the conversion rejects a set that the source takes.
        InvalidArgumentError: as UnsupportedError.
        InternalError: an output has another shape.
    """
    answers = Answers(tolerance)
    refusal: InvalidArgumentError | UnsupportedError | None = None
    num_answered = 0
    started = time.monotonic()
    for position, each in enumerate((*sets, *otherwise)):
        if num_answered and (position >= len(sets) or time.monotonic() - started > _SECONDS):
            break
        try:
            expected = source(each.arrays)
        except (InvalidArgumentError, UnsupportedError) as error:
            refusal = error
            continue
        num_answered += 1
        doubt = functools.cache(functools.partial(model.doubt, each.arrays))
        if model.is_random:
            answers.add_again(each, expected, source(each.arrays))
        answers.add(each, expected, result(each.arrays), doubt)
    if refusal is not None and not num_answered:
        raise refusal
    return list(answers.verdicts())
