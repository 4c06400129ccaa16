"""Sparse look-up tables where Apple's interpreter and Apple's documents are two: its documents are followed."""

from pathlib import Path
from typing import Any

import numpy as np

from support.apple_interpreter import interpret, raised
from support.coreai_programs import Sample, ops, packed, save
from support.raised import computed

# The example that the dialect's documentation of `lut_to_sparse_with_bitmask` has for vectors along axis 0.
MASK = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
PLACES = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1])
TABLE = np.array([[2, 3], [4, 5]], np.float32).reshape(1, 1, 2, 2)
RESULT = np.array(
    [
        [2, 4, 0, 0, 0, 0],
        [3, 5, 0, 0, 0, 0],
        [4, 2, 0, 0, 0, 4],
        [5, 3, 0, 0, 0, 5],
        [0, 4, 2, 0, 2, 0],
        [0, 5, 3, 0, 3, 0],
        [0, 0, 0, 4, 0, 0],
        [0, 0, 0, 5, 0, 0],
    ],
    np.float32,
)


def test_vectors_of_a_sparse_table_lie_along_their_axis(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        sparse = ops.build_sparse_with_bitmask(packed(PLACES, "ui1"), packed(MASK, "ui1"))
        found = ops.lut_to_sparse_with_bitmask(sparse, ops.constant(TABLE), ops.constant(np.int16(0)))
        return ops.mul(x, ops.sparse_with_bitmask_to_dense(found))

    sample = Sample(build, {"x": np.ones((8, 6), np.float32)})
    path = save(sample, tmp_path / "m.aimodel")
    np.testing.assert_array_equal(computed(raised(path), sample.inputs)["y0"], RESULT)
    # 1.0.0b3 fills the places row by row. When this fails it has been mended: have test_agreement judge axis 0 too.
    assert not np.array_equal(interpret(path, sample.inputs)["y0"], RESULT)
