"""No quantized weight is further from the weight than half a step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from triune.compression.blocks import matmul_n_bits, padded_rows
from triune.compression.integers import quantized
from triune.graph.packed import repeat_blocks

SIZES = st.floats(-30, 30)


@given(
    seed=st.integers(0, 1 << 30),
    bits=st.sampled_from([4, 8]),
    axis=st.sampled_from([None, 0, 1]),
    block=st.sampled_from([0, 2, 8]),
    is_symmetric=st.booleans(),
    exponent=SIZES,
    shift=st.floats(-2, 2),
)
@examples(200)
def test_the_error_is_at_most_half_a_step(
    seed: int, bits: int, axis: int | None, block: int, is_symmetric: bool, exponent: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    weight = ((rng.standard_normal((8, 16)) + shift) * 2.0**exponent).astype(np.float32)
    weight *= rng.integers(0, 2, (8, 1))
    block_axis = (1 - axis if axis is not None else 1) if block else None
    packed = quantized(
        weight, bits, axis=None if block else axis, block_axis=block_axis, block=block, is_symmetric=is_symmetric
    )
    step = repeat_blocks(packed.scale, weight.shape, block) if block else packed.scale
    assert (np.abs(packed.whole() - weight) <= step * (0.5 + 1e-5)).all()
    if block:
        assert packed.scale.shape[block_axis or 0] == weight.shape[block_axis or 0] // block


@given(seed=st.integers(0, 1 << 30), rows=st.integers(1, 70), is_symmetric=st.booleans(), exponent=SIZES)
@examples(100)
def test_the_error_of_products_of_four_bits_is_at_most_half_a_step(
    seed: int, rows: int, is_symmetric: bool, exponent: float
) -> None:
    weight = (np.random.default_rng(seed).standard_normal((rows, 3)) * 2.0**exponent).astype(np.float32)
    filled = padded_rows(weight, 32)
    packed = quantized(filled, 4, axis=None, block_axis=1, block=32, is_symmetric=is_symmetric)
    found = matmul_n_bits(packed, len(weight))
    step = np.repeat(found.scales.reshape(3, -1).T, 32, axis=0)[:rows]
    assert (np.abs(found.whole - weight) <= step * (0.5 + 1e-5)).all()
