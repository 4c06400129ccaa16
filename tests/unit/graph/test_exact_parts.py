"""Parts of a matrix whose sums of products are below 2^24, and are no shorter than they must be."""

import numpy as np
import pytest

from triune.graph.exact_parts import MOST_EXACT, exact_parts

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000, 8192])
@pytest.mark.parametrize("most", [1, 40, 255])
def test_parts_are_all_rows_in_order_and_exact(rows: int, most: int) -> None:
    matrix = RNG.integers(-most, most + 1, (rows, 5)).astype(np.int16)
    parts = exact_parts(matrix, 255)
    assert [row for some in parts for row in range(some.start, some.stop)] == list(range(rows))
    sums = [int(np.abs(matrix[some].astype(np.int64)).sum(axis=0).max()) * 255 for some in parts]
    assert max(sums) <= MOST_EXACT
    # A part ends where 64 rows more would be too many.
    assert all(each + 64 * 255 * 255 > MOST_EXACT for each in sums[:-1])


def test_a_matrix_without_elements() -> None:
    assert exact_parts(np.zeros((0, 3), np.int16), 255) == []
    assert exact_parts(np.zeros((70, 0), np.int16), 255) == [slice(0, 70)]
