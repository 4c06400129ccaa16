"""Run a model and its conversion on the same sets of inputs, and compare their outputs."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet
from triune.graph.verify.difference import Difference
from triune.graph.verify.verdict import Answers, OutputVerdict

Compute: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A function that computes outputs from inputs, both by the names that the source has for them."""


class Uncertain(Protocol):
    """A model that estimates how uncertain its outputs are, as `OnnxModel` does."""

    @property
    def is_random(self) -> bool:
        """Whether the model may draw random numbers."""
        ...

    def uncertainty(self, inputs: Mapping[str, Array], /) -> Mapping[str, Difference]:
        """The largest difference that an equally correct result may have, for each output."""
        ...


_SECONDS = 20.0
"""After this time, in seconds, no further set of inputs is run: for large models a few sets suffice."""


def verify(
    sets: Sequence[InputSet],
    source: Compute,
    result: Compute,
    model: Uncertain,
    tolerance: float,
    *,
    otherwise: Sequence[InputSet] = (),
    on_wrong: Callable[[InputSet, Mapping[str, Array]], None] | None = None,
    seconds: float = _SECONDS,
) -> list[OutputVerdict]:
    """Compare the outputs of a model and of its conversion.

    If the model draws random numbers, the source runs twice on each set. Outputs that differ between the two runs are
    random, and their verdict is UNKNOWN.

    Args:
        sets: sets of inputs. A set that the source rejects, for instance an index out of range, is skipped.
        source: runs the model, whose outputs count as right.
        result: runs the conversion, whose outputs are judged.
        model: the ONNX model, the source or the result of the conversion. An error within the uncertainty of its
            outputs in ONNX Runtime is not a fault.
        tolerance: the allowed error of floats, relative to an output's largest value; integers and booleans must be
            equal.
        otherwise: further sets, used if the source rejects all of `sets`.
        seconds: after this time no further set is run.
        on_wrong: called with each set for which an output is wrong, and the conversion's outputs.

    Returns:
        a verdict for each output of the source.

    Raises:
        UnsupportedError: the source rejects all sets, or the conversion rejects a set that the source takes.
        InvalidArgumentError: the same, if a set does not fit the model's inputs.
        InternalError: an output has another shape.
    """
    answers = Answers(tolerance)
    refusal: InvalidArgumentError | UnsupportedError | None = None
    num_answered = 0
    started = time.monotonic()
    for position, each in enumerate((*sets, *otherwise)):
        if num_answered and (position >= len(sets) or time.monotonic() - started > seconds):
            break
        try:
            expected = source(each.arrays)
        except (InvalidArgumentError, UnsupportedError) as error:
            refusal = error
            continue
        num_answered += 1
        uncertainty = functools.cache(functools.partial(model.uncertainty, each.arrays))
        if model.is_random:
            answers.add_again(each, expected, source(each.arrays))
        actual = result(each.arrays)
        is_wrong = answers.add(each, expected, actual, uncertainty)
        if is_wrong and on_wrong is not None:
            on_wrong(each, actual)
    if refusal is not None and not num_answered:
        raise refusal
    return list(answers.verdicts())
