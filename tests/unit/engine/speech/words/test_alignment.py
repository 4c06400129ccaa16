"""Dynamic time warping against the plain recursion, and scores whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from triune.engine.speech.words.alignment import _begins, _median, first_frames


def best_sum(weights: NDArray[np.float32]) -> float:
    """The largest sum of weights on any path, by the plain recursion."""
    rows, columns = weights.shape
    best = np.full((rows, columns), -np.inf)
    for row in range(rows):
        for column in range(columns):
            before = [best[row - a, column - b] for a, b in ((1, 1), (1, 0), (0, 1)) if row >= a and column >= b]
            best[row, column] = weights[row, column] + (max(before) if before else 0)
    return float(best[-1, -1])


def along(weights: NDArray[np.float32], begins: NDArray[np.int64]) -> NDArray[np.float32]:
    """The weights where a path is whose rows begin in these columns: each reaches up to where the next one begins."""
    places = np.arange(weights.shape[1])
    ends = np.array([*begins[1:], weights.shape[1] - 1])
    return np.where((places >= begins[:, None]) & (places <= ends[:, None]), weights, np.float32(-1e6))


@pytest.mark.parametrize("seed", range(20))
def test_the_path_has_the_largest_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rng.integers(1, 9), rng.integers(1, 30))).astype(np.float32)
    begins = _begins(weights)
    assert begins[0] == 0
    assert (np.diff(begins) >= 0).all()
    assert best_sum(along(weights, begins)) == pytest.approx(best_sum(weights), abs=1e-4)


def test_tokens_begin_where_heads_look() -> None:
    ends = [4, 11, 30, 38, 50]
    scores = np.zeros((3, 5, 80), np.float32)
    for row, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        scores[:, row, begin:end] = 9
    # What is behind the sound does not count, however much the heads look at it.
    scores[:, :, 50:] = 20
    found = first_frames(scores, 50)
    assert np.abs(found - np.array([0, 4, 11, 30, 38])).max() <= 1


def test_heads_that_look_nowhere_give_no_error() -> None:
    for num_frames in (1, 2, 9):
        found = first_frames(np.zeros((2, 4, 9), np.float32), num_frames)
        assert ((found >= 0) & (found < num_frames)).all()


def test_the_median_leaves_out_what_is_alone() -> None:
    x = np.zeros((1, 1, 20), np.float32)
    x[0, 0, 7] = 5
    x[0, 0, 12:] = 1
    assert _median(x)[0, 0].tolist() == [0.0] * 12 + [1.0] * 8
