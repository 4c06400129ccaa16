"""Comparing the outputs of a unit with those of `cpu`."""

import ml_dtypes
import numpy as np
import pytest

from triune.backends.gate.compare import compare, joined
from triune.core.datatypes import Array
from triune.core.verdict import Verdict

SCORES = np.array([[1.0, 4.0, 2.0], [3.0, 3.9, 0.0], [4.0, 0.0, 0.0]], np.float32)


def judged(expected: Array, found: Array, tolerance: float = 0.25, *, is_scores: bool = False) -> Verdict:
    scores = ("y",) if is_scores else ()
    return compare({"y": expected}, {"y": found}, precision="bf16", tolerance=tolerance, scores=scores)


@pytest.mark.parametrize(
    ("expected", "found", "relative", "excess"),
    [
        (np.array([4.0, 0.0]), np.array([4.0, 1.0]), 0.25, ""),
        (np.array([4.0, 0.0]), np.array([4.0, 1.1]), 0.275, "output 'y' is off by 1.1, where its largest value is 4"),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), 0.0, ""),
        (np.array([1.0]), np.array([np.nan]), np.inf, "output 'y' is off by inf, where its largest value is 1"),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.25, ""),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 5, 5]), 0.5, "output 'y' has other values"),
        (np.array([b"a"], object), np.array([b"b"], object), 1.0, "output 'y' has other values"),
        (np.zeros((2, 1)), np.zeros(2), np.inf, "output 'y' has shape [2], not [2, 1]"),
        (np.array([4.0, 1.0], ml_dtypes.bfloat16), np.array([4.0, 1.25], ml_dtypes.bfloat16), 0.0625, ""),
    ],
)
def test_errors(expected: Array, found: Array, relative: float, excess: str) -> None:
    verdict = judged(expected, found)
    assert verdict.relative == pytest.approx(relative)
    assert verdict.excess == excess


def test_scores_choose_the_same_class_where_it_is_clear() -> None:
    # The second row is not clear: its best class leads by 0.9, and half of what is allowed is 0.5 with 0.25 of 4.
    other = SCORES.copy()
    other[1] = [3.95, 3.9, 0.0]
    assert judged(SCORES, other, 0.5, is_scores=True).agreement == 1.0
    # Clear now: the wrong class is chosen, though no score is off by more than a quarter of the largest.
    verdict = judged(SCORES, other, 0.25, is_scores=True)
    assert verdict.agreement == pytest.approx(2 / 3)
    assert verdict.relative < 0.25
    assert verdict.excess == "output 'y' chooses another class in 33% of the clear rows"
    assert judged(SCORES, other, 0.25).agreement is None
    assert judged(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), is_scores=True).agreement is None


def test_the_worst_sample_decides() -> None:
    right = judged(SCORES, SCORES, is_scores=True)
    wrong = judged(SCORES, SCORES + 3, is_scores=True)
    worst = joined([right, wrong, right])
    assert worst.excess == wrong.excess != ""
    assert (worst.largest, worst.relative, worst.agreement) == (3.0, 0.75, 1.0)
    assert joined([right]) == right
