"""Images stay with channels last from one convolution to the next."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlx.core")

from support.graphs import answers, model_of
from triune.metal.builder import MlxBuilder
from triune.metal.function import Function
from triune.metal.images import Images, channels_last
from triune.metal.library import exclusive, from_numpy, mx, to_numpy
from triune.metal.lower import lower

BLOCK = """g (float[n,4,6,6] x) => (float[n,4,m,k] y)
    <float[4,4,1,1] w = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}, float[4,4,1,1] v = {1,0,0,1,0,1,1,0,1,0,0,1,0,1,1,0}> {
    a = Conv(x, w) b = Conv(a, v) c = Add(a, b) d = Relu(c) p = MaxPool<kernel_shape = [3, 3], strides = [2, 2],
    pads = [1, 1, 1, 1]>(d) e = Conv(p, w) j = Concat<axis = 1>(e, p) s = Sigmoid(e) y = Mul(s, e) }"""


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_sum_of_two_views_is_computed_with_channels_last() -> None:
    images = Images()
    left, right = (from_numpy(numbers(2, 5, 6, 3) + shift) for shift in (0, 1))
    given = images.first(left), images.first(right)
    found = images.elementwise(mx.add, given)
    assert images.has(found)
    assert np.array_equal(to_numpy(found), to_numpy(given[0]) + to_numpy(given[1]))
    assert np.array_equal(to_numpy(images.last(found)), to_numpy(left) + to_numpy(right))


@pytest.mark.parametrize("shape", [(), (1,), (6,), (5, 1), (3, 1, 1), (1, 3, 1, 1), (2, 3, 5, 6)])
def test_another_operand_is_broadcast_as_numpy_does(shape: tuple[int, ...]) -> None:
    images, other = Images(), numbers(*shape)
    view = images.first(from_numpy(numbers(2, 5, 6, 3)))
    for operands in ([view, from_numpy(other)], [from_numpy(other), view]):
        found = images.elementwise(mx.subtract, operands)
        assert images.has(found)
        assert np.array_equal(to_numpy(found), np.subtract(*map(to_numpy, operands)))


def test_a_view_that_gains_a_dimension_is_broadcast_as_it_is() -> None:
    images = Images()
    view, other = images.first(from_numpy(numbers(2, 5, 6, 3))), from_numpy(numbers(4, 1, 1, 1, 1))
    found = images.elementwise(mx.multiply, [view, other])
    assert not images.has(found)
    assert np.array_equal(to_numpy(found), to_numpy(view) * to_numpy(other))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(), (0,), (1,), (2, 3), (1, 3), (0, 1, 2, 3)])
def test_reductions_are_over_the_same_elements(axes: tuple[int, ...], *, keepdims: bool) -> None:
    images = Images()
    view = images.first(from_numpy(numbers(2, 5, 6, 3)))
    found = images.reduced(mx.max, view, axes, keepdims=keepdims)
    assert np.array_equal(to_numpy(found), np.asarray(to_numpy(view)).max(axis=axes or (), keepdims=keepdims))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_views_are_joined_along_the_same_axis(axis: int) -> None:
    images = Images()
    view = images.first(from_numpy(numbers(2, 5, 6, 3)))
    found = images.joined([view, view], axis)
    assert images.has(found)
    assert np.array_equal(to_numpy(found), np.concatenate([to_numpy(view)] * 2, axis))
    assert np.array_equal(to_numpy(images.last(found)), to_numpy(channels_last(found)))


def test_a_residual_block_is_onnx_runtimes_and_turns_no_image_between_convolutions(tmp_path: Path) -> None:
    model, inputs = model_of(BLOCK, opset=21), {"x": numbers(2, 4, 6, 6)}
    (found,), (right,) = Function(lower(model), compiles=False)(inputs, ["y"]), answers(model, inputs)
    np.testing.assert_allclose(found, right, rtol=1e-5)
    program = lower(model)
    with exclusive():
        (y,), _ = program({"x": from_numpy(inputs["x"])}, ["y"])
        mx.export_to_dot(str(tmp_path / "y.dot"), y)
    # The input, two constants in ONNX's order, those of three convolutions in MLX's, and the output.
    assert len(re.findall('label ="Transpose"', (tmp_path / "y.dot").read_text())) == 7


def test_an_input_in_fp32_is_narrowed_instead_of_the_weights(tmp_path: Path) -> None:
    program = lower(model_of(BLOCK, opset=21), "bf16")
    with exclusive():
        (found,), _ = program({"x": mx.ones((2, 4, 6, 6))}, ["y"])
        mx.export_to_dot(str(tmp_path / "y.dot"), found)
    assert found.dtype == mx.bfloat16
    assert len(re.findall('label ="AsType"', (tmp_path / "y.dot").read_text())) == 1


def test_only_operands_of_16_bits_are_paired() -> None:
    wide, narrow = mx.ones((2, 2)), mx.ones((2, 2), dtype=mx.bfloat16)
    builder = MlxBuilder(mx.bfloat16)
    assert [x.dtype for x in builder.paired(wide, narrow)] == [mx.bfloat16, mx.bfloat16]
    assert [x.dtype for x in builder.paired(narrow, wide)] == [mx.bfloat16, mx.bfloat16]
    assert [x.dtype for x in builder.paired(wide, wide)] == [mx.float32, mx.float32]
    assert [x.dtype for x in MlxBuilder().paired(wide, narrow)] == [mx.float32, mx.bfloat16]
