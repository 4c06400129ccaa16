"""Packed weights: one form for all exporters' ways, kept through normalization and the Neural Engine's layout."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.graphs import model_of, ops_of
from support.lowered import FLOAT, INT64, plain_answers
from support.lowered import model_of as lowered_model_of
from support.packed_models import FORMS, packed_model, x_of
from triune.core.errors import InvalidArgumentError
from triune.graph import weights
from triune.graph.ane import ane_layout
from triune.graph.check import evaluate
from triune.graph.core_ops import CORE_OPS
from triune.graph.normalize import normalize
from triune.graph.packed import SMALL, packed_of, small_tensor

WHOLE = {"n bits 4 with float zeros"}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_weights_stay_packed(form: str, is_large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", 64 if is_large else 1 << 20)
    source = packed_model(form)
    model = normalize(source)
    ops = Counter(ops_of(model))
    assert set(ops) <= CORE_OPS
    assert ops["Cast"] == ops["Mul"] == ops["Transpose"] == 0
    assert ops["DequantizeLinear"] == (0 if form in WHOLE else 1)
    inputs = {"x": x_of(form)}
    (expected,) = plain_answers(source, inputs)
    np.testing.assert_allclose(evaluate(model, inputs)[0], expected, atol=1e-4)
    if form == "gemm":
        return
    laid = ane_layout(model)
    assert Counter(ops_of(laid))["Conv"] == 1
    np.testing.assert_allclose(evaluate(laid, inputs)[0], expected, atol=1e-4)
    tensors = {tensor.name: tensor for tensor in laid.graph.initializer}
    packed = [packed_of(node, tensors.get) for node in laid.graph.node if node.op_type == "DequantizeLinear"]
    assert [each.elem_type in SMALL for each in packed if each is not None] == [True] * len(packed)


@pytest.mark.parametrize(
    "body",
    [
        # Of an input that is no constant, of a scale for two axes, of zero points that are no whole numbers.
        "<float[2] s = {1, 2}> { f = Cast <to = 1> (x)  y = Mul (f, s) }",
        "<int8[2,2] q = {1,2,3,4}, float[2,2] s = {1,2,3,4}>"
        " { f = Cast <to = 1> (q)  m = Mul (f, s)  y = Add (m, x2) }",
        "<int8[2] q = {1,2}, float[1] z = {0.5}, float[1] s = {2}>"
        " { f = Cast <to = 1> (q)  d = Sub (f, z)  m = Mul (d, s)  y = Add (m, x2) }",
    ],
)
def test_what_only_looks_packed_stays(body: str) -> None:
    text = f"agraph (int8[2,2] x, float[2,2] x2) => (float[2,2] y) {body}"
    assert "DequantizeLinear" not in ops_of(normalize(model_of(text)))


def test_a_dequantized_constant_is_what_its_parts_say() -> None:
    text = """agraph (float[2] x) => (float[2,4] y)
    <uint8[2,4] q = {1,2,3,4,5,6,7,8}, float[2,2] s = {1, 10, 100, 1000}, uint8[2,2] z = {1,1,1,0}>
    { w = DequantizeLinear <axis = 1, block_size = 2> (q, s, z)  y = Identity (w) }"""
    model = model_of(text)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    packed = packed_of(model.graph.node[0], tensors.get)
    assert packed is not None
    assert packed.is_blocked
    np.testing.assert_array_equal(packed.whole(), [[0, 1, 20, 30], [400, 500, 7000, 8000]])
    np.testing.assert_array_equal(packed.transposed(1, 0).whole(), packed.whole().T)
    assert numpy_helper.to_array(tensors["q"]).shape == packed.data.shape


def _weights_of(model: ModelProto) -> NDArray[np.float32]:
    """What a model of no inputs gives, once it is normalized."""
    return evaluate(normalize(model), {})[0]


@pytest.mark.parametrize(("width", "block"), [(40, 32), (48, 32), (33, 16), (100, 64), (17, 16)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_last_block_cut_short_is_not_taken_for_even_blocks(width: int, block: int, bits: int) -> None:
    """Two blocks of 40 elements are 32 and 8, not 20 and 20."""
    rng, num_blocks = np.random.default_rng(width), -(-width // block)
    data = rng.integers(0, 256, (3, num_blocks, block * bits // 8)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, 3 * num_blocks).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=width, N=3, bits=bits, block_size=block
    )
    model = lowered_model_of([node], [("x", FLOAT, [2, width])], [("y", FLOAT, [2, 3])], q=data, s=scales)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    inputs = {"x": rng.standard_normal((2, width)).astype(np.float32)}
    np.testing.assert_allclose(evaluate(normalize(model), inputs)[0], plain_answers(model, inputs)[0], atol=1e-4)


def test_rows_gathered_of_blocks_cut_short() -> None:
    rng = np.random.default_rng(3)
    node = helper.make_node(
        *("GatherBlockQuantized", ["q", "x", "s"], ["y"]),
        domain="com.microsoft",
        block_size=16,
        gather_axis=0,
        quantize_axis=1,
    )
    scales = rng.uniform(0.01, 0.1, (8, 2)).astype(np.float32)
    model = lowered_model_of([node], [("x", INT64, [3])], [("y", FLOAT, [3, 24])], s=scales)
    model.graph.initializer.append(small_tensor("q", TensorProto.INT4, rng.integers(-8, 8, (8, 24))))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    inputs = {"x": np.array([1, 7, 0])}
    np.testing.assert_allclose(evaluate(normalize(model), inputs)[0], plain_answers(model, inputs)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4", "UINT4"])
def test_dequantized_blocks_cut_short_are_made_whole(kind: str) -> None:
    data = np.arange(10).reshape(5, 2) % 8
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0, block_size=3)
    model = lowered_model_of([node], [], [("y", FLOAT, [5, 2])], s=np.float32([[1, 10], [100, 1000]]))
    elem_type = getattr(TensorProto, kind)
    model.graph.initializer.append(small_tensor("q", elem_type, data))
    model.graph.initializer.append(small_tensor("z", elem_type, np.array([[0, 1], [2, 3]])))
    right = [[0, 0], [2, 20], [4, 40], [400, 4000], [-200, -2000]]
    np.testing.assert_array_equal(_weights_of(model), right)
    np.testing.assert_array_equal(plain_answers(model, {})[0], right)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ"])
@pytest.mark.parametrize("scale", [[0.5], [0.5, 2, 4]])
def test_small_floats_are_made_whole(kind: str, scale: list[float]) -> None:
    node = helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=1)
    s = np.float32(scale[0] if len(scale) == 1 else scale)
    model = lowered_model_of([node], [], [("y", FLOAT, [2, 3])], s=s)
    values = [1.5, -2, 0.25, 96, -0.75, 0]
    model.graph.initializer.append(helper.make_tensor("q", getattr(TensorProto, kind), (2, 3), values))
    normal = normalize(model)
    assert "DequantizeLinear" not in ops_of(normal)
    np.testing.assert_array_equal(evaluate(normal, {})[0], np.reshape(values, (2, 3)) * s)


_SIZES = {"K": 64, "N": 8, "bits": 4, "block_size": 32}


def n_bits_model(given: Sequence[NDArray[Any] | None], attributes: Mapping[str, int]) -> ModelProto:
    """A MatMulNBits of the constants `given`, of which None is left out."""
    constants = {f"c{place}": each for place, each in enumerate(given) if each is not None}
    names = [f"c{place}" if each is not None else "" for place, each in enumerate(given)]
    node = helper.make_node("MatMulNBits", ["x", *names], ["y"], name="q_proj", domain="com.microsoft", **attributes)
    tensors = [numpy_helper.from_array(each, name) for name, each in constants.items()]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, ["b", 64])], [value("y", TensorProto.FLOAT, ["b", 8])]
    graph = helper.make_graph([node], "n_bits", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


_CODES, _SCALES = np.ones((8, 2, 16), np.uint8), np.ones(16, np.float32)


@pytest.mark.parametrize(
    ("given", "attributes", "reason"),
    [
        ((_CODES, _SCALES), {"K": 64, "N": 8}, "the attribute 'block_size' is missing"),
        ((_CODES, _SCALES), _SIZES | {"N": -8}, "'N' is -8, and has to be from 1"),
        ((_CODES, _SCALES), _SIZES | {"block_size": 0}, "'block_size' is 0, and has to be a power of 2"),
        ((_CODES[:7], _SCALES), _SIZES, r"'c0' \(7, 2, 16\) has to have 256 elements"),
        ((_CODES, _SCALES[:15]), _SIZES, r"'c1' \(15\) has to have 16 elements"),
        ((_CODES.astype(np.float32), _SCALES), _SIZES, "'c0' is FLOAT, and has to be INT8 or UINT8"),
        ((_CODES, _SCALES, np.ones(7, np.uint8)), _SIZES, r"'c2' \(7\) has to have 8 elements"),
        ((_CODES, _SCALES, np.ones(15, np.float32)), _SIZES, r"'c2' \(15\) has to have 16 elements"),
        ((_CODES, _SCALES, np.ones(8, np.int64)), _SIZES, "'c2' is INT64, and has to be UINT8, or floats"),
        ((_CODES, _SCALES, None, np.zeros(9, np.int32)), _SIZES, r"'c3' \(9\) has to have 64 elements"),
        (
            (_CODES, _SCALES, None, np.full(64, 2, np.int32)),
            _SIZES,
            "'c3' has blocks from 2 to 2, and there are 2 from 0",
        ),
        ((_CODES, _SCALES, None, np.full(64, -1, np.int32)), _SIZES, "'c3' has blocks from -1 to -1"),
        ((_CODES, _SCALES, None, None, np.zeros(9, np.float32)), _SIZES, r"'c4' \(9\) has to have 8 elements"),
    ],
)
def test_packed_weights_that_do_not_fit_are_refused_by_name(
    given: Sequence[NDArray[Any] | None], attributes: Mapping[str, int], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"MatMulNBits 'q_proj': {reason}"):
        normalize(n_bits_model(given, attributes))


def test_groups_may_have_those_of_a_whole_last_block() -> None:
    model = n_bits_model((_CODES, _SCALES, None, np.zeros(64, np.int32)), _SIZES)
    longer = n_bits_model((_CODES, _SCALES, None, np.zeros(64, np.int32)), _SIZES | {"K": 50})
    for each in (model, longer):
        each.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64 if each is model else 50
    x = np.ones((1, 64), np.float32)
    (wide,), (short,) = evaluate(normalize(model), {"x": x}), evaluate(normalize(longer), {"x": x[:, :50]})
    np.testing.assert_allclose(short, wide * 50 / 64, rtol=1e-6)
