"""Outputs are judged by their own size, however small they are."""

from typing import Any

import numpy as np
import pytest

from triune.graph.blame.judge import error_of


@pytest.mark.parametrize(
    ("expected", "actual", "uncertain", "is_wrong"),
    [
        ([5e-5, 4e-5], [0.0, 0.0], None, True),
        ([5e-5, 4e-5], [5.1e-5, 4e-5], None, False),
        ([5e-5, 4e-5], [0.0, 0.0], [1e-4, 1e-4], False),
        ([5e-5, 4e-5], [0.0, 0.0], [1e-4, 0.0], True),
        # The fp16 of the interface has no smaller numbers.
        ([1e-9, 1e-9], [0.0, 0.0], None, False),
        ([np.nan, 1.0], [0.0, 1.0], None, False),
        ([2.0, 1.0], [np.nan, 1.0], None, True),
        ([1, 2, 3], [1, 2, 4], None, True),
    ],
)
def test_errors(expected: list[Any], actual: list[Any], uncertain: list[float] | None, is_wrong: bool) -> None:
    spread = None if uncertain is None else np.array(uncertain)
    assert (error_of(np.array(expected), np.array(actual), 0.05, spread) > 1) is is_wrong
