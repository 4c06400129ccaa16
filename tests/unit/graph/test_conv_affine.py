"""Scales and shifts of a convolution's channels become its weights, and what must not become so stays."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.lowered import model_of, plain_answers
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(3)


def _noise(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def _fused(model: ModelProto) -> list[str]:
    """The operators after the pass, whose answers are compared with those before it."""
    x = {
        value.name: _noise(*(dim.dim_value for dim in value.type.tensor_type.shape.dim)) for value in model.graph.input
    }
    expected = plain_answers(model, x)
    with WeightFile() as file:
        after = Tidy()(ConvAffine(file)(ModelProto.FromString(model.SerializeToString())))
    for actual, right in zip(plain_answers(after, x), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in after.graph.node]


def _after_conv(op: str, groups: int, dims: int, follow: list[Any], **constants: Any) -> ModelProto:
    size = 4
    inside = (size, 6 // groups) if op == "ConvTranspose" else (6, size // groups)
    nodes = [helper.make_node(op, ["x", "w"], ["c"], group=groups), *follow]
    shape = [2, size, *([5] * dims)]
    return model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, None)], w=_noise(*inside, *([2] * dims)), **constants)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_batch_norm_product_and_sum_go_into_the_weights(op, groups, dims):
    spatial = [1] * dims
    follow = [
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Mul", ["k", "n"], ["p"]),
        helper.make_node("Add", ["p", "a"], ["q"]),
        helper.make_node("Sub", ["q", "one"], ["y"]),
    ]
    constants = {
        **{name: _noise(6) for name in "sbm"},
        "v": np.abs(_noise(6)),
        "k": _noise(6, *spatial),
        "a": _noise(1, 6, *spatial),
        "one": np.float32(1),
    }

    assert _fused(_after_conv(op, groups, dims, follow, **constants)) == [op]


@pytest.mark.parametrize(
    ("op", "operands", "k"),
    [
        ("Div", ["c", "k"], np.float32(41)),
        ("Div", ["k", "c"], np.float32(41)),
        ("Sub", ["k", "c"], np.float32(1)),
        ("Mul", ["c", "k"], np.ones((6, 1), np.float32) * 2),
        ("Mul", ["c", "k"], np.ones((1, 1, 6, 1, 1), np.float32) * 2),
        ("Mul", ["c", "k"], np.ones((2, 1, 1, 1), np.float32) * 2),
        ("Mul", ["c", "c"], np.float32(1)),
        ("Mul", ["c", "k"], np.float32(3e38)),
        ("Mul", ["c", "k"], np.float32(1e-45)),
        ("Add", ["c", "k"], np.float32(np.inf)),
    ],
)  # fmt: skip
def test_what_is_no_scale_of_channels_stays(op, operands, k):
    follow = [helper.make_node(op, operands, ["y"])]
    constants = {"k": k} if "k" in operands else {}

    model = _after_conv("ConvTranspose", 1, 2, follow, **constants)

    with WeightFile() as file:
        assert [node.op_type for node in ConvAffine(file)(model).graph.node] == ["ConvTranspose", op]


@pytest.mark.parametrize(("weight", "factor"), [(1e30, 1e-30), (1.0, 1e-12)])
def test_what_overflows_between_still_does(weight, factor):
    model = _after_conv("Conv", 1, 1, [helper.make_node("Mul", ["c", "k"], ["y"])], k=np.float32(factor))
    (kernel,) = (each for each in model.graph.initializer if each.name == "w")
    kernel.CopyFrom(numpy_helper.from_array(np.full((6, 4, 2), weight, np.float32), "w"))

    assert _fused(model) == ["Conv", "Mul"]


def test_a_result_that_is_read_elsewhere_stays():
    follow = [helper.make_node("Mul", ["c", "k"], ["y"]), helper.make_node("Relu", ["c"], ["z"])]
    model = _after_conv("Conv", 1, 2, follow, k=np.float32(2))
    given_out = _after_conv("Conv", 1, 2, follow[:1], k=np.float32(2))
    given_out.graph.output.append(helper.make_tensor_value_info("c", FLOAT, None))

    assert _fused(model) == ["Conv", "Mul"]
    assert _fused(given_out) == ["Conv", "Mul"]
