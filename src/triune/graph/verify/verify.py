"""Two forms of one model, computed on the same inputs, set after set."""

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
"""The outputs for inputs, both by the source's names."""

_SECONDS = 20.0
"""After this time no further set is begun: large models are told apart by their first answers already."""


def verify(
    sets: Sequence[InputSet],
    source: Compute,
    result: Compute,
    model: OnnxModel,
    tolerance: float,
    *,
    otherwise: Sequence[InputSet] = (),
) -> list[OutputVerdict]:
    """Compare what a model and what it was converted to compute.

    Args:
        sets: of inputs. Those that the source does not take, an index out of range for instance, are passed over.
        source: computes the right answers.
        result: computes those to judge.
        model: the one of the two that is ONNX: an error is no fault where ONNX Runtime is as unsure of itself.
        tolerance: of floats, relative to the largest value of an output; whole numbers and truths must be equal.
        otherwise: more sets, for a source that takes none of the others.

    Returns:
        A verdict for each output of the source.

    Raises:
        UnsupportedError: the source takes none of the sets, or the result not one that the source takes.
        InvalidArgumentError: as UnsupportedError.
        InternalError: an output is of another shape.
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
        answers.add(each, expected, result(each.arrays), doubt)
    if refusal is not None and not num_answered:
        raise refusal
    return list(answers.verdicts())
