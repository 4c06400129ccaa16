"""Weights that ONNX Runtime is given beside the model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.graphs import model_of
from support.lowered import FLOAT
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.load import load
from triune.graph.normalize import normalize
from triune.graph.packed import small_tensor
from triune.graph.session import GraphSession, texts_of


@pytest.mark.parametrize("kind", ["UINT4", "BFLOAT16", "UINT8"])
def test_large_weights_of_any_type_are_taken(kind: str, tmp_path: Path) -> None:
    numbers = np.arange(1 << 18).reshape(2, -1) % 16
    elem_type = getattr(TensorProto, kind)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    weight = (
        small_tensor("w", elem_type, numbers)
        if kind == "UINT4"
        else onnx.numpy_helper.from_array(numbers.astype(dtype), "w")
    )
    nodes = [helper.make_node("Cast", ["w"], ["f"], to=FLOAT), helper.make_node("Mul", ["x", "f"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, FLOAT, [2, 1 << 17]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    session = GraphSession(load(tmp_path / "m.onnx"), "m")
    results, _ = session.run({"x": np.ones((2, 1 << 17), np.float32)}, {})
    np.testing.assert_array_equal(results["y"], numbers)


def test_products_with_quantized_weights_are_exact() -> None:
    """ONNX Runtime's default brings the other operand to 8 bits, which is off by a part in some hundred."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (64, 32)).astype(np.int8)
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])]
    values = [helper.make_tensor_value_info(name, FLOAT, [4, size]) for name, size in (("x", 64), ("y", 32))]
    constants = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array(0.5, np.float32), "s"),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = rng.integers(0, 256, (4, 64)).astype(np.float32)
    results, _ = GraphSession(model, "m").run({"x": x}, {})
    np.testing.assert_array_equal(results["y"], x @ weight.astype(np.float32) / 2)


def _scaled_self_attention() -> onnx.ModelProto:
    """softmax(s s^T) s, where s = 0.3 x."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["s", "scale"], ["q"]),
        helper.make_node("MatMul", ["q", "t"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"]),
        helper.make_node("MatMul", ["p", "s"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, FLOAT, [1, 5, 8]) for name in "xy")
    scale = onnx.numpy_helper.from_array(np.array(0.3, np.float32), "scale")
    graph = helper.make_graph(nodes, "g", [x], [y], [scale])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_a_model_that_the_fusions_break_runs_without_them() -> None:
    """The fusions of ONNX Runtime make a graph of this one that it refuses itself."""
    x = np.random.default_rng(0).standard_normal((1, 5, 8)).astype(np.float32)
    results, _ = GraphSession(_scaled_self_attention(), "m").run({"x": x}, {})
    want, _ = GraphSession(_scaled_self_attention(), "m", optimizes=False).run({"x": x}, {})
    np.testing.assert_allclose(results["y"], want["y"], rtol=1e-5)


def test_what_onnx_runtime_refuses_is_told_in_its_first_words() -> None:
    model = _scaled_self_attention()
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(UnsupportedError, match="Unheard"):
        GraphSession(model, "m")


def test_weights_of_int8_with_a_scale_for_each_channel_need_no_zero_points() -> None:
    """ONNX Runtime brings them to uint8, with one zero point, which it refuses."""
    weight = np.array([[-128, 127, 100]] * 2, np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [2, size]) for name, size in (("x", 2), ("y", 3))]
    scale = np.array([0.5, 0.25, 2], np.float32)
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in (("w", weight), ("s", scale))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    results, _ = GraphSession(model, "m").run({"x": np.eye(2, dtype=np.float32)}, {})
    np.testing.assert_array_equal(results["y"], weight * scale)


def test_what_lies_between_quantized_values_is_computed_as_written() -> None:
    """ONNX Runtime's own softmax of 8 bits gives other numbers."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Softmax", ["d"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "unit", "none"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "unit", "none"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, FLOAT, [64, 10]) for name in "xy")
    numbers = {"scale": np.float32(0.07), "zero": np.uint8(100), "unit": np.float32(1 / 255), "none": np.uint8(0)}
    constants = [onnx.numpy_helper.from_array(np.array(each), name) for name, each in numbers.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    given = {"x": (rng.standard_normal((64, 10)) * 3).astype(np.float32)}
    want, _ = GraphSession(model, "m", optimizes=False).run(given, {})
    results, _ = GraphSession(model, "m").run(given, {})
    np.testing.assert_array_equal(results["y"], want["y"])


def test_a_quantized_lstm_is_computed_by_one_thread() -> None:
    """Of several, each would bring the hidden state of its own rows to 8 bits, by their range."""
    rng = np.random.default_rng(3)
    hidden, zero = 8, np.zeros(1, np.int8)
    weights = {"w": (1, 4, 4 * hidden), "r": (1, hidden, 4 * hidden)}
    constants = {name: rng.integers(-64, 64, shape).astype(np.int8) for name, shape in weights.items()}
    constants |= {"ws": np.array([0.02], np.float32), "wz": zero, "rs": np.array([0.03], np.float32), "rz": zero}
    body = f"y = com.microsoft.DynamicQuantizeLSTM <hidden_size = {hidden}> (x, w, r, , , , , , ws, wz, rs, rz)"
    text = f"agraph (float[6,4,4] x) => (float[6,1,4,{hidden}] y) {{ {body} }}"
    model = model_of(text, opset=21, imports=', "com.microsoft" : 1')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in constants.items())
    # Rows of very different range.
    x = (rng.standard_normal((6, 4, 4)) * np.array([0.01, 0.1, 1, 10])[:, None]).astype(np.float32)
    expected, _ = GraphSession(normalize(model), "in core operators").run({"x": x}, {})
    results, _ = GraphSession(model, "m", num_threads=4).run({"x": x}, {})
    np.testing.assert_allclose(results["y"], expected["y"], atol=1e-6)


@pytest.mark.parametrize("given", [["ä b", "c"], [b"\xc3\xa4 b", b"c"], [b"\xc3\xa4 b", "c"]])
def test_texts_may_be_given_as_their_bytes(given: list[str | bytes]) -> None:
    model = model_of(
        'g (string[2] x) => (bool[2] y) { c = Constant <value_string = "ä b"> () y = Equal (x, c) }', opset=19
    )
    results, _ = GraphSession(model, "m").run({"x": np.array(given, np.object_)}, {})
    assert results["y"].tolist() == [True, False]


def test_texts_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"is not UTF-8: b'\\xff'"):
        texts_of(np.array([[b"\xff"]], np.object_))
    np.testing.assert_array_equal(texts_of(np.array([[b"a"], [b"bc"]])), [["a"], ["bc"]])
