"""Weights as integers: the numbers of the formula."""

import numpy as np
import pytest
from onnx import TensorProto

from triune.compression.blocks import matmul_n_bits, padded_rows
from triune.compression.integers import quantized

WEIGHT = np.array([[1.0, -2.0, 0.5, 0.0], [127.0, 63.5, -127.0, 1.0]], np.float32)


def test_one_scale_is_the_largest_magnitude_over_127() -> None:
    packed = quantized(WEIGHT, 8, axis=None)
    assert packed.elem_type == TensorProto.INT8
    assert packed.scale.tolist() == [[1.0]]
    assert packed.zero_point is None
    # 0.5 and 63.5 are ties, which go to the even number.
    assert packed.data.tolist() == [[1, -2, 0, 0], [127, 64, -127, 1]]


def test_each_channel_has_its_scale() -> None:
    packed = quantized(WEIGHT, 8, axis=0)
    assert np.allclose(packed.scale, [[2 / 127], [1.0]], rtol=1e-7)
    assert packed.data[0].tolist() == [64, -127, 32, 0]


def test_zero_points_make_zero_exact() -> None:
    packed = quantized(np.array([[-1.0, 0.0, 2.0, 0.5]], np.float32), 8, axis=0, is_symmetric=False)
    assert packed.elem_type == TensorProto.UINT8
    assert np.allclose(packed.scale, 3 / 255)
    assert packed.zero_point is not None
    assert packed.zero_point.tolist() == [[85]]
    # 0.5 / (3 / 255) + 85 = 127.5, and rint(42.5) is 42.
    assert packed.data.tolist() == [[0, 85, 255, 127]]
    assert packed.whole()[0, 1] == 0


def test_four_bits_have_seven_levels_on_each_side() -> None:
    packed = quantized(np.array([[7.0, -7.0, 3.4, 0.6]], np.float32), 4, axis=None)
    assert packed.elem_type == TensorProto.INT4
    assert packed.scale.tolist() == [[1.0]]
    assert packed.data.tolist() == [[7, -7, 3, 1]]


@pytest.mark.parametrize("axis", [0, 1])
def test_groups_have_a_scale_each(axis: int) -> None:
    weight = np.array([[7.0, 1.0, 14.0, -2.0], [0.7, 0.1, 0.0, 0.0]], np.float32)
    weight = weight if axis == 0 else weight.T
    packed = quantized(np.ascontiguousarray(weight), 4, axis=None, block_axis=1 - axis, block=2)
    scale, data = (packed.scale, packed.data) if axis == 0 else (packed.scale.T, packed.data.T)
    # A group of zeros has the scale 1.
    assert np.allclose(scale, [[1.0, 2.0], [0.1, 1.0]])
    assert data.tolist() == [[7, 1, 7, -1], [7, 1, 0, 0]]


def test_each_place_of_a_kernel_has_groups_of_its_own() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 64, 5, 1)).astype(np.float32)
    packed = quantized(weight, 4, axis=None, block_axis=1, block=32)
    assert packed.scale.shape == (8, 2, 5, 1)
    assert np.allclose(packed.scale[3, 1, 4, 0], np.abs(weight[3, 32:, 4, 0]).max() / 7)


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-44])
def test_weights_of_nothing_stay_nothing(value: float, is_symmetric: bool) -> None:
    packed = quantized(np.full((2, 4), value, np.float32), 8, axis=0, is_symmetric=is_symmetric)
    assert packed.scale.tolist() == [[1.0], [1.0]]
    assert not packed.whole().any()


def test_scales_have_the_type_of_the_weights() -> None:
    packed = quantized(WEIGHT.astype(np.float16), 8, axis=0)
    assert packed.scale.dtype == np.float16
    assert packed.whole().dtype == np.float16


def test_a_last_group_may_be_shorter_in_products() -> None:
    weight = np.zeros((40, 1), np.float32)
    weight[:, 0] = [7.0] * 32 + [14.0] * 8
    rows = padded_rows(weight, 32)
    packed = quantized(rows, 4, axis=None, block_axis=1, block=32, is_symmetric=True)
    found = matmul_n_bits(packed, len(weight))
    assert found.scales.tolist() == [1.0, 2.0]
    assert found.blocks.shape == (1, 2, 16)
    # Level 15 is 7 above the middle, in both halves of a byte; what fills the group up is level 8, 0.
    assert found.blocks[0, 0].tolist() == [0xFF] * 16
    assert found.blocks[0, 1].tolist() == [0xFF] * 4 + [0x88] * 12
    assert np.array_equal(found.whole, weight)
