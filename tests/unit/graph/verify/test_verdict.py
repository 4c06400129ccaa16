"""What answers say: floats within a tolerance of their largest value, whole numbers and truths exactly."""

from typing import Any

import numpy as np
import pytest

from triune.graph.audit import InputSet
from triune.graph.verify.difference import Difference
from triune.graph.verify.verdict import Answers, OutputVerdict, Verdict

INPUTS = InputSet("noise", {"x": np.ones(1, np.float32)})


def judged(
    expected: Any,
    actual: Any,
    tolerance: float = 1e-4,
    uncertainty: float = 0.0,
    inputs: InputSet = INPUTS,
    mean: float = np.inf,
) -> OutputVerdict:
    answers = Answers(tolerance)
    found = {"y": Difference(uncertainty, mean)}
    answers.add(inputs, {"y": np.asarray(expected)}, {"y": np.asarray(actual)}, lambda: found)
    (verdict,) = answers.verdicts()
    return verdict


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "verdict"),
    [
        ([1.0, 100.0], [1.005, 100.0], 1e-4, Verdict.RIGHT),
        ([1.0, 100.0], [1.02, 100.0], 1e-4, Verdict.WRONG),
        ([1.0, 100.0], [1.02, 100.0], 0.05, Verdict.RIGHT),
        ([1e-9, 2e-9], [1e-9, 0.0], 1e-4, Verdict.RIGHT),
        ([np.nan, 1.0], [np.nan, 1.0], 1e-4, Verdict.RIGHT),
        ([0.0, 1.0], [np.nan, 1.0], 0.05, Verdict.WRONG),
        ([np.inf, 1.0], [np.inf, 1.0], 1e-4, Verdict.RIGHT),
        ([7e4, 1.0], [np.inf, 1.0], 0.05, Verdict.WRONG),
        ([3, 4], [3, 5], 0.05, Verdict.WRONG),
        ([2**62, 0], [2**62 + 1, 0], 1e-4, Verdict.WRONG),
        ([True, False], [True, True], 0.05, Verdict.WRONG),
        ([True, False], [1, 0], 1e-4, Verdict.RIGHT),
        ([b"cat", b"dog"], [b"cat", b"cow"], 1e-4, Verdict.WRONG),
        ([0.0, 0.0], [0.0, 0.0], 1e-4, Verdict.UNKNOWN),
        ([np.nan, np.nan], [np.nan, np.nan], 1e-4, Verdict.UNKNOWN),
        ([0.0, 0.0], [0.0, 1.0], 1e-4, Verdict.WRONG),
    ],
)
def test_verdicts(expected: list[Any], actual: list[Any], tolerance: float, verdict: Verdict) -> None:
    assert judged(expected, actual, tolerance).verdict is verdict


def test_tiny_inputs_make_tiny_differences_count() -> None:
    tiny = InputSet("tiny", {"x": np.full(1, 1e-6, np.float32)})
    assert judged([1e-6, 2e-6], [1e-6, 0.0], inputs=tiny).verdict is Verdict.WRONG


def test_what_the_source_itself_is_unsure_of_is_no_fault() -> None:
    assert judged([1.0, 2.0], [1.0, 2.09], uncertainty=0.1).verdict is Verdict.RIGHT
    assert judged([1.0, 2.0], [1.0, 2.2], uncertainty=0.1).verdict is Verdict.WRONG
    assert judged([1.0, 2.0], [1.0, np.inf], uncertainty=np.inf).verdict is Verdict.WRONG


def test_steps_excuse_as_many_elements_as_take_them() -> None:
    assert judged([1.0, 2.0], [1.0, 2.09], uncertainty=0.1, mean=0.05).verdict is Verdict.RIGHT
    assert judged([1.0, 2.0], [1.09, 2.09], uncertainty=0.1, mean=0.05).verdict is Verdict.WRONG


def test_the_worst_answer_is_told_and_any_variety_tells_something() -> None:
    answers = Answers(1e-4)
    for name, actual in (("noise", 1.0), ("whole numbers", 1.5)):
        answers.add(InputSet(name, {}), {"y": np.ones(2)}, {"y": np.full(2, actual)}, dict)
    (verdict,) = answers.verdicts()
    assert (verdict.inputs, verdict.error, verdict.verdict) == ("whole numbers", 0.5, Verdict.WRONG)
    answers = Answers(1e-4)
    for value in (0.0, 1.0):
        answers.add(INPUTS, {"y": np.full(2, value)}, {"y": np.full(2, value)}, dict)
    assert next(answers.verdicts()).verdict is Verdict.RIGHT


def test_a_few_integers_are_told_from_many() -> None:
    right = np.arange(200)
    few, many = (judged(right, np.where(right < count, -1, right)) for count in (2, 3))
    assert few.verdict is many.verdict is Verdict.WRONG
    assert (few.share, many.share) == (0.01, 0.015)
    assert (few.is_in_few_integers, many.is_in_few_integers) == (True, False)
    assert few.described == "1.00% of the elements of output 'y' differ on generated noise"
    floats = judged(np.ones(200), np.where(right < 2, 3.0, 1.0))
    assert not floats.is_in_few_integers
    assert "is off by 2 on generated noise, where 0.0001 is allowed, 1.00% of its elements" in floats.described


def test_shapes_must_agree() -> None:
    found = judged([1.0], [1.0, 2.0])
    assert (found.verdict, found.shape, found.computed) == (Verdict.WRONG, (1,), (2,))
    assert found.described == "output 'y' has the shape [2] on generated noise, where the source's has [1]"
    assert not found.is_in_few_integers
    # Core ML has no scalars.
    assert judged(1.0, [1.0]).computed is None
