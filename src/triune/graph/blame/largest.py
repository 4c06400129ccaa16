"""Find how large inputs may be for a conversion to fp16 to be right: sums of larger inputs exceed 65504."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet, SizedInputs
from triune.graph.verify import Answers, Compute, OnnxModel, Verdict

SMALLEST: Final = 8.0
"""The smallest of `_SIZES`. It is not tried: the ordinary sets of inputs show whether inputs of this size are right."""

_SIZES = (SMALLEST, *(2.0**power for power in range(4, 16)), 60_000.0, 1e6)
"""The magnitudes of input elements that may be tried. The last is beyond fp16: results are right only if all nodes that
read inputs compute in fp32, or if results are the same for infinite inputs.
"""


def largest_note(
    inputs: Sequence[SizedInputs],
    right: Compute,
    result: Compute,
    source: OnnxModel,
    tolerance: float,
    seconds: float,
    run_seconds: float,
) -> str | None:
    """Find how large inputs must be for outputs in fp16 to be wrong, by bisection: in ten runs at most.

    Args:
        inputs: the inputs that are made larger.
        right: computes the right outputs.
        result: computes the conversion's outputs.
        source: the source in ONNX Runtime.
        tolerance: the allowed error of floats, relative to the largest element of their output.
        seconds: how long it may take.
        run_seconds: how long a set of inputs takes.

    Returns:
        the size, and what is wrong with the outputs beyond it, for the user; "" if no output becomes wrong, or if no
        input can be made larger; None if there was no time to try.
    """
    if not inputs:
        return ""
    search = _Search(inputs, right, result, source, tolerance, time.monotonic() + seconds, run_seconds)
    low, high = 0, len(_SIZES) - 1
    what = search.lost(_SIZES[high])
    if what is None:
        return None
    while what and high - low > 1:
        middle = (low + high) // 2
        found = search.lost(_SIZES[middle])
        if found is None:
            break
        low, high, what = (low, middle, found) if found else (middle, high, what)
    if not what:
        return ""
    between = "" if high - low == 1 else " (what is between was not compared, since the time for that was over)"
    beyond = ", since nodes in fp16 read numbers beyond 65504 as infinite" if _SIZES[low] == _SIZES[-2] else ""
    return f"fp16 is right for generated inputs up to {_SIZES[low]:g}; for {what}{beyond}{between}"


class _Search:
    def __init__(
        self,
        inputs: Sequence[SizedInputs],
        right: Compute,
        result: Compute,
        source: OnnxModel,
        tolerance: float,
        deadline: float,
        run_seconds: float,
    ) -> None:
        self._inputs = inputs
        self._right = right
        self._result = result
        self._source = source
        self._tolerance = tolerance
        self._deadline = deadline
        self._run_seconds = run_seconds

    def lost(self, size: float) -> str | None:
        """Returns why the outputs are wrong for inputs whose largest elements are about `size`; "" if they are right,
        None if there is no time left.
        """
        for each in self._inputs:
            if time.monotonic() + self._run_seconds > self._deadline:
                return None
            inputs = each.of(size)
            try:
                expected, actual = self._right(inputs.arrays), self._result(inputs.arrays)
            except (InvalidArgumentError, UnsupportedError, InternalError):
                # Skip inputs that the source or the conversion refuses: the two cannot be compared on them.
                continue
            if what := self._compared(inputs, expected, actual):
                return f"{inputs.name} {what}"
        return ""

    def _compared(self, inputs: InputSet, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> str:
        floats = {name: array for name, array in expected.items() if array.dtype.kind in "fV"}
        for name, array in floats.items():
            if word := _lost(array, actual[name]):
                return f"output '{name}' is {word}"
        answers = Answers(self._tolerance)
        answers.add(inputs, floats, actual, functools.partial(self._source.uncertainty, inputs.arrays))
        for each in answers.verdicts():
            if each.verdict is Verdict.WRONG:
                return f"output '{each.name}' is off by {each.error:.3g}, where {each.allowed:.3g} is allowed"
        return ""


def _lost(expected: Array, actual: Array) -> str:
    """Returns "NaN" or "infinite" if elements of a result are so although the right elements are finite; else ""."""
    if expected.size != actual.size:
        return ""
    one, other = expected.astype(np.float64).reshape(-1), actual.astype(np.float64).reshape(-1)
    lost = other[np.isfinite(one) & ~np.isfinite(other)]
    return "" if not lost.size else "NaN" if np.isnan(lost).any() else "infinite"
