"""Half precision put into graphs: what becomes fp16, what stays, and that ONNX Runtime computes nearly the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.graph.normalize import normalize
from triune.graph.passes.halve import Halve, halved

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def run(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def check(
    model: ModelProto, feeds: Mapping[str, Any], *keep: str, rtol: float = 2e-3, atol: float = 2e-3
) -> ModelProto:
    """Halve it, with an opset that ONNX Runtime has, and compare."""
    right = run(model, feeds)
    half = halve(model, *keep)
    for one, other in zip(run(half, feeds), right, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
    return half


def halve(model: ModelProto, *keep: str) -> ModelProto:
    half = Halve(keep)(normalize(model))
    onnx.checker.check_model(half, full_check=True)
    half.opset_import[0].version = 21
    half.ir_version = 10
    return half


def types_of(model: ModelProto) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}


def floats_of(model: ModelProto, op_type: str) -> list[set[int]]:
    """The types of the floats that each node of an operator reads and gives."""
    graph = model.graph
    types = types_of(model) | {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    nodes = [node for node in graph.node if node.op_type == op_type]
    return [{types[name] for name in (*node.input, *node.output) if types[name] in (FLOAT, FLOAT16)} for node in nodes]


def test_inputs_and_outputs_stay_what_they_are() -> None:
    model = model_of("g (float[2] x, int64[2] i) => (float[2] y, int64[2] k) { y = Sin (x)  k = Add (i, i) }", opset=21)
    half = check(model, {"x": np.array([0.5, 2], np.float32), "i": np.array([1, 2])})
    assert floats_of(half, "Sin") == [{FLOAT16}]
    assert [node.op_type for node in half.graph.node] == ["Cast", "Sin", "Add", "Cast"]


def test_what_is_given_out_as_it_came_stays_exact() -> None:
    text = """g (float[1] x) => (float[1] a, float[1] b, float[1] y) <float[1] c = {0.1}> {
        a = Identity (x)
        b = Identity (c)
        y = Add (x, c)
    }"""
    half = check(model_of(text, opset=21), {"x": np.array([0.3], np.float32)})
    assert floats_of(half, "Add") == [{FLOAT16}]
    model = model_of("g (float[1] x) => (float[1] c, float[1] y) <float[1] c = {0.1}> { y = Add (x, c) }", opset=21)
    half = halve(model)
    np.testing.assert_array_equal(run(half, {"x": np.array([0.3], np.float32)})[0], np.array([0.1], np.float32))


def test_an_input_may_have_a_default() -> None:
    model = model_of("g (float[1] x, float[1] c) => (float[1] y) <float[1] c = {0.1}> { y = Add (x, c) }", opset=21)
    half = check(model, {"x": np.array([0.3], np.float32)})
    assert [tensor.data_type for tensor in half.graph.initializer if tensor.name == "c"] == [FLOAT]


def test_kept_nodes_share_values_in_fp32() -> None:
    # The square of 1000 and its mean are beyond fp16; between the kept nodes nothing is halved.
    text = """g (float[1,4] x) => (float[1,4] y) <float[1] two = {2.0}, int64[1] last = {-1}> {
        square = Pow (x, two)
        mean = ReduceMean (square, last)
        root = Sqrt (mean)
        y = Div (x, root)
    }"""
    x = np.array([[1000, -2000, 3000, 10]], np.float32)
    half = check(model_of(text, opset=21), {"x": x}, "Pow", "ReduceMean", "Sqrt")
    assert [floats_of(half, op) for op in ("Pow", "ReduceMean", "Sqrt", "Div")] == [[{FLOAT}]] * 3 + [[{FLOAT16}]]


def test_kept_nodes_take_inputs_and_constants_and_give_outputs_in_fp32() -> None:
    text = "g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {0.1, 1e9}> { y = Mul (x, w) z = Add (x, w) }"
    feeds = {"x": np.array([1.0001, 3], np.float32)}
    half = halve(model_of(text, opset=21), "Mul")
    y, z = run(half, feeds)
    np.testing.assert_array_equal(y, feeds["x"] * np.array([0.1, 1e9], np.float32))
    np.testing.assert_allclose(z, [1.1, 65504], rtol=1e-3)
    assert (floats_of(half, "Mul"), floats_of(half, "Add")) == ([{FLOAT}], [{FLOAT16}])


def test_a_node_is_kept_by_its_name() -> None:
    model = model_of("g (float[2] x) => (float[2] y) { a = Exp (x) y = Exp (a) }", opset=21)
    for node, name in zip(model.graph.node, ("first", "second"), strict=True):
        node.name = name
    half = check(model, {"x": np.array([0.5, 1], np.float32)}, "second")
    assert floats_of(half, "Exp") == [{FLOAT16}, {FLOAT}]


def test_what_is_kept_must_be_there() -> None:
    with pytest.raises(InvalidArgumentError, match="'Softmax', which is to stay in fp32, is neither a node"):
        halve(model_of("g (float[2] x) => (float[2] y) { y = Exp (x) }"), "Softmax")


BRANCHES = """g (bool c, float[2] x) => (float[2] y) <float[2] w = {0.1, 3.0}> {
    a = Mul (x, w)
    y = If (c) <
        then_branch = t () => (float[2] p) <float[2] v = {0.7, 0.1}> { q = Add (a, v) p = Exp (q) },
        else_branch = e () => (float[2] r) { s = Mul (a, w) r = Identity (s) }
    >
}"""


@pytest.mark.parametrize("keep", [(), ("Exp",), ("If",), ("Mul",), ("Add", "If")])
@pytest.mark.parametrize("flag", [False, True])
def test_branches(keep: tuple[str, ...], flag: bool) -> None:
    check(model_of(BRANCHES, opset=21), {"c": np.array(flag), "x": np.array([0.5, 2], np.float32)}, *keep)


def test_a_kept_branch_computes_in_fp32() -> None:
    half = halve(model_of(BRANCHES, opset=21), "If")
    node = next(node for node in half.graph.node if node.op_type == "If")
    for attribute in node.attribute:
        assert attribute.g.output[0].type.tensor_type.elem_type == FLOAT
        assert not any(tensor.data_type == FLOAT16 for tensor in attribute.g.initializer)


LOOP = """g (int64 n, bool c, float[2] x) => (float[2] total, float[k, 2] all) <float[2] w = {0.1, 3.0}> {
    total, all = Loop (n, c, x) <
        body = b (int64 i, bool go, float[2] sum) => (bool more, float[2] next, float[2] seen) {
            more = Identity (go)
            f = Cast <to = 1> (i)
            d = Mul (w, f)
            next = Add (sum, d)
            seen = Exp (d)
        }
    >
}"""


@pytest.mark.parametrize("keep", [(), ("Exp",), ("Add",), ("Loop",)])
def test_loops(keep: tuple[str, ...]) -> None:
    feeds = {"n": np.array(3), "c": np.array(True), "x": np.array([0.5, 2], np.float32)}
    check(model_of(LOOP, opset=21), feeds, *keep)


def test_scales_of_images_stay_exact() -> None:
    # Within a branch and outside; the same constant is an operand that is halved, too.
    text = """g (bool c, float[1,1,3,3] x) => (float[1,1,4,4] y, float[4] z) <float[4] s = {1.0, 1.0, 1.3334, 1.3334}> {
        z = Add (s, s)
        y = If (c) <
            then_branch = t () => (float[1,1,4,4] p) { p = Resize <mode = "linear"> (x, , s) },
            else_branch = e () => (float[1,1,4,4] r) { q = Neg (x) r = Resize <mode = "linear"> (q, , s) }
        >
    }"""
    for flag in (False, True):
        feeds = {"c": np.array(flag), "x": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)}
        check(model_of(text, opset=21), feeds)


def test_scales_of_images_may_be_computed() -> None:
    text = """g (float[1,1,2,2] x, float[4] s) => (float[1,1,h,w] y) <float[4] one = {1.0, 1.0, 1.0, 1.0}> {
        t = Mul (s, one)
        y = Resize <mode = "nearest"> (x, , t)
    }"""
    feeds = {"x": np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), "s": np.array([1, 1, 2, 3], np.float32)}
    check(model_of(text, opset=21), feeds)


def test_regions_of_images_stay_exact() -> None:
    # In fp16 the region would begin a quarter of an element elsewhere.
    text = """g (float[1,1,1,2049] x) => (float[1,1,1,w] y)
        <float[2] roi = {0.3337, 0.8}, float[1] s = {0.25}> {
        y = Resize <mode = "nearest", axes = [3], coordinate_transformation_mode = "tf_crop_and_resize"> (x, roi, s)
    }"""
    x = np.random.default_rng(0).integers(0, 9, (1, 1, 1, 2049)).astype(np.float32)
    check(model_of(text, opset=21), {"x": x})


def test_boxes_are_compared_in_fp32() -> None:
    text = """g (float[1,2,4] b, float[1,1,2] s) => (int64[k,3] y)
        <int64[1] n = {2}, float[1] most = {0.5}, float[1] least = {0.1}> {
        twice = Add (b, b)
        y = NonMaxSuppression (twice, s, n, most, least)
    }"""
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9]]], np.float32)
    check(model_of(text, opset=21), {"b": boxes, "s": np.array([[[0.9, 0.8]]], np.float32)})


def test_results_that_onnx_has_in_fp32_are_cast() -> None:
    text = """g (float[2,4] x) => (float[2,4] y, float[2,1] z) <float[4] s = {1.0, 2.0, 3.0, 4.0}> {
        y, m, d = LayerNormalization (x, s)
        z = Add (m, d)
    }"""
    half = check(model_of(text, opset=21), {"x": np.random.default_rng(0).random((2, 4), np.float32)}, rtol=1e-2)
    assert floats_of(half, "Add") == [{FLOAT16}]


def test_types_that_are_not_written_are() -> None:
    text = """g (int64[1] n, float[2] x) => (float[2] y, float[2] z) {
        zeros = ConstantOfShape (n)
        y = Add (zeros, x)
        noise = RandomUniform <shape = [2]> ()
        z = Add (noise, x)
    }"""
    half = halve(model_of(text, opset=21))
    assert floats_of(half, "Add") == [{FLOAT16}] * 2


def test_casts_and_quantization_follow() -> None:
    text = """g (int64[2] i, float[2] x) => (float[2] y) <float s = {0.5}, uint8 zero = {3}> {
        f = Cast <to = 1> (i)
        q = QuantizeLinear (x, s, zero)
        d = DequantizeLinear (q, s, zero)
        y = Add (f, d)
    }"""
    half = check(model_of(text, opset=21), {"i": np.array([1, 2]), "x": np.array([0.5, 2], np.float32)})
    assert floats_of(half, "Add") == [{FLOAT16}]
    assert floats_of(half, "DequantizeLinear") == [{FLOAT16}]


def test_large_masks_stay_finite() -> None:
    array = np.array([-np.finfo(np.float32).max, 1e9, np.inf, -np.inf, np.nan, 1e-9, 65504], np.float32)
    np.testing.assert_array_equal(
        halved(array), np.array([-65504, 65504, np.inf, -np.inf, np.nan, 6e-8, 65504], np.float16)
    )
    text = """g (float[1,3] x, bool[1,3] hidden) => (float[1,3] y) <float low = {-3.4e38}> {
        masked = Where (hidden, low, x)
        y = Softmax (masked)
    }"""
    feeds = {"x": np.array([[1, 2, 3]], np.float32), "hidden": np.array([[False, True, False]])}
    check(model_of(text, opset=21), feeds)
    feeds["hidden"][:] = True
    check(model_of(text, opset=21), feeds)


def test_large_weights_are_halved() -> None:
    weight = np.random.default_rng(0).random((256, 128), np.float32)
    model = model_of("g (float[1,256] x) => (float[1,128] y) { y = MatMul (x, w) }", opset=21)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    half = check(model, {"x": np.ones((1, 256), np.float32)}, rtol=1e-2)
    assert {tensor.name: tensor.data_type for tensor in half.graph.initializer} == {"w": FLOAT16}
    half = check(model, {"x": np.ones((1, 256), np.float32)}, "MatMul", rtol=1e-6)
    assert [tensor.data_type for tensor in half.graph.initializer] == [FLOAT]


def test_sequences_of_outer_values() -> None:
    """A branch that gives an outer value out."""
    text = """g (bool c, float[2] x) => (float[2] y) {
        a = Exp (x)
        y = If (c) <
            then_branch = t () => (float[2] p) { p = Identity (a) },
            else_branch = e () => (float[2] r) { r = Identity (x) }
        >
    }"""
    for keep in ((), ("If",), ("Exp",)):
        for flag in (False, True):
            check(model_of(text, opset=21), {"c": np.array(flag), "x": np.array([0.5, 2], np.float32)}, *keep)
