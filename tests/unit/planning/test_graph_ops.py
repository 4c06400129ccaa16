"""What is read of a graph's nodes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from triune.core.errors import InvalidArgumentError
from triune.graph.normalize import normalize
from triune.planning.graph_ops import KEPT, ops_of
from triune.planning.op import Op, OpClass


def ops(text: str, past_tokens: int = 0, **constants: np.ndarray) -> dict[str, Op]:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    found = ops_of(normalize(model, keep=KEPT), past_tokens)
    return {op.outputs[0]: op for op in found}


def test_a_convolution() -> None:
    text = "g (float[2,8,16,16] x) => (float[2,4,8,8] y) { y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w, b) }"
    found = ops(text, w=np.ones((4, 8, 3, 3), np.float32), b=np.ones(4, np.float32))
    op = found["y"]
    assert op.op_class is OpClass.CONV
    assert (op.rows, op.inner, op.columns) == (2 * 8 * 8, 8 * 9, 4)
    assert op.flops == 2 * 128 * 72 * 4
    assert op.weights == 4 * 72 + 4
    assert (op.read, op.written) == (2 * 8 * 256, 2 * 4 * 64)
    assert op.facts.kernel == (3, 3)


def test_a_depthwise_convolution() -> None:
    text = "g (float[1,32,8,8] x) => (float[1,32,8,8] y) { y = Conv<group=32, pads=[1,1,1,1]>(x, w) }"
    op = ops(text, w=np.ones((32, 1, 3, 3), np.float32))["y"]
    assert op.op_class is OpClass.DEPTHWISE
    assert op.flops == 2 * 64 * 9 * 32


def test_products_with_weights_and_without() -> None:
    text = """g (float[1,10,16] x) => (float[1,10,10] z) {
        y = MatMul(x, w)
        t = Transpose<perm=[0,2,1]>(y)
        z = MatMul(y, t)
    }"""
    found = ops(text, w=np.ones((16, 32), np.float32))
    assert (found["y"].op_class, found["y"].rows, found["y"].columns) == (OpClass.MATMUL, 10, 32)
    assert found["y"].weights == 16 * 32
    assert found["z"].op_class is OpClass.PRODUCT
    assert found["z"].flops == 2 * 10 * 10 * 32
    assert found["t"].op_class is OpClass.MOVE
    assert found["z"].facts.inner == 32


def test_packed_weights_keep_their_bits() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=32),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [
            helper.make_tensor("w", TensorProto.INT4, [64, 8], bytes(256), raw=True),
            numpy_helper.from_array(np.ones((2, 8), np.float32), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    (op,) = ops_of(normalize(model, keep=KEPT))
    assert op.op_type == "MatMul"
    # 4 bits, and a scale of 16 for each 32.
    assert (op.weights, op.weight_bits) == (512, 4.5)


def test_an_elementwise_operation_is_fused_with_what_only_it_reads() -> None:
    text = """g (float[1,10,16] x) => (float[1,10,32] z, float[1,10,32] u) {
        y = MatMul(x, w)
        z = Relu(y)
        u = Exp(z)
    }"""
    found = ops(text, w=np.ones((16, 32), np.float32))
    assert found["z"].is_fused
    assert (found["z"].read, found["z"].written) == (0, 0)
    # `z` is an output, too.
    assert not found["u"].is_fused


def test_attention_reads_what_came_before() -> None:
    text = """g (float[1,1,64] q, float[1,1,32] k, float[1,1,32] v) => (float[1,1,64] y) {
        y = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, v)
    }"""
    alone, later = ops(text)["y"], ops(text, past_tokens=99)["y"]
    assert alone.flops == 4 * 1 * 4 * 16
    assert later.flops == 100 * alone.flops
    assert later.read == alone.read + 2 * 99 * 2 * 16
    assert later.scratch == 4 * 100


def test_an_lstm_computes_step_after_step() -> None:
    text = "g (float[5,2,8] x) => (float[5,1,2,4] y) { y, h = LSTM<hidden_size=4>(x, w, r) }"
    op = ops(text, w=np.ones((1, 16, 8), np.float32), r=np.ones((1, 16, 4), np.float32))["y"]
    assert op.op_class is OpClass.SERIAL
    assert op.flops == 2 * 5 * 2 * (16 * 8 + 16 * 4)


def test_facts_for_rules() -> None:
    text = """g (int64[1,4] i, float[1,4] f) => (float[1,4,8] y, int64[1,1] a, float[1,4] c) {
        y = Gather(table, i)
        a = ArgMax<axis=1>(f)
        c = Cast<to=1>(i)
    }"""
    found = ops(text, table=np.ones((100, 8), np.float32))
    assert found["y"].facts.has_computed_index
    assert found["y"].facts.has_integers
    # A table of which rows are looked up is not read whole.
    assert found["y"].weights == 0
    assert found["a"].facts.dtype == "int64"
    assert found["c"].facts.has_integers


def test_a_shape_that_is_not_known_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match=r"the shape of 'y', at Relu 'y', is not known .* --shape"):
        ops("g (float[n] x) => (float[n] y) { y = Relu(x) }")
