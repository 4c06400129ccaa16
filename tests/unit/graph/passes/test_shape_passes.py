"""Transposes, Reshapes, Casts and indices."""

import numpy as np
import pytest
from onnx import TensorProto

from support.one_pass import ops_after, passed
from triune.graph.passes.casts import Casts
from triune.graph.passes.narrow_indices import NarrowIndices
from triune.graph.passes.reshapes import Reshapes
from triune.graph.passes.sink_transposes import SinkTransposes
from triune.graph.passes.transposes import Transposes
from triune.graph.values import Values


def test_transposes_that_undo_each_other() -> None:
    text = """g (float[2,3,4] x) => (float[2,3,4] y)
      { a = Exp(x) b = Transpose<perm=[2,0,1]>(a) c = Transpose<perm=[1,2,0]>(b) y = Neg(c) }"""
    assert ops_after(Transposes(), text) == ["Exp", "Neg"]


def test_two_transposes_become_one() -> None:
    text = "g (float[2,3,4] x) => (float[2,4,3] y) { b = Transpose<perm=[2,0,1]>(x) y = Transpose<perm=[1,0,2]>(b) }"
    assert ops_after(Transposes(), text) == ["Transpose"]


def test_a_transpose_without_axes() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { a = Exp(x) b = Transpose(a) y = Transpose(b) }"
    assert ops_after(Transposes(), text) == ["Exp"]


def test_the_first_stays_if_others_read_it() -> None:
    text = (
        "g (float[2,3] x) => (float[2,3] y, float[3,2] z) { a = Exp(x) z = Transpose(a) b = Transpose(z) y = Neg(b) }"
    )
    assert ops_after(Transposes(), text) == ["Exp", "Transpose", "Neg"]


def test_a_transpose_sinks_to_the_next_one() -> None:
    text = """g (float[2,3,4] x) => (float[2,3,4] y) <float[4] bias = {1,2,3,4}, float two = {2}> {
      a = Transpose<perm=[0,2,1]>(x) b = Relu(a) c = Mul(b, two) d = Transpose<perm=[0,2,1]>(c) y = Add(d, bias) }"""
    assert ops_after(SinkTransposes(), text) == ["Relu", "Mul", "Transpose", "Add"]


def test_constants_on_the_way_are_transposed() -> None:
    text = """g (float[2,3,4] x) => (float[4,3,2] y) <float[3] bias = {1,2,3}, float[2,4,1] scale = {1,2,3,4,5,6,7,8}> {
      a = Transpose<perm=[0,2,1]>(x) b = Add(a, bias) c = Mul(scale, b) d = Sub(bias, c)
      y = Transpose<perm=[1,2,0]>(d) }"""
    assert ops_after(SinkTransposes(), text) == ["Add", "Mul", "Sub", "Transpose"]


def test_a_transpose_that_meets_none_stays() -> None:
    text = "g (float[2,3] x) => (float[3,2] y) { a = Transpose(x) y = Relu(a) }"
    assert ops_after(SinkTransposes(), text) == ["Transpose", "Relu"]


def test_a_value_that_others_read_does_not_move() -> None:
    text = (
        "g (float[2,3] x) => (float[2,3] y, float[3,2] z) { a = Transpose(x) b = Relu(a) z = Neg(b) y = Transpose(b) }"
    )
    assert ops_after(SinkTransposes(), text) == ["Transpose", "Relu", "Neg", "Transpose"]


def test_two_transposed_operands() -> None:
    text = "g (float[2,3] x, float[2,3] w) => (float[3,2] y) { a = Transpose(x) b = Transpose(w) y = Sub(a, b) }"
    assert ops_after(SinkTransposes(), text) == ["Sub", "Transpose"]


def test_operands_of_other_sizes_broadcast_alike() -> None:
    text = "g (float[2,3] x, float[1,3] w) => (float[3,2] y) { a = Transpose(x) b = Transpose(w) y = Sub(a, b) }"
    assert ops_after(SinkTransposes(), text) == ["Sub", "Transpose"]


def test_reshapes_become_one() -> None:
    text = """g (float[2,3,4] x) => (float[4,6] y) <int64[1] flat = {-1}, int64[2] s = {4, 6}, int64[1] axis = {0}> {
      a = Reshape(x, flat) b = Unsqueeze(a, axis) c = Flatten(b) y = Reshape(c, s) }"""
    assert ops_after(Reshapes(), text) == ["Reshape"]


def test_a_reshape_that_copies_a_size_keeps_what_it_copies_from() -> None:
    text = """g (float[2,12] x) => (float[4,2,3] y) <int64[2] a = {4, 6}, int64[3] b = {0, 2, 3}>
      { c = Reshape(x, a) y = Reshape(c, b) }"""
    assert ops_after(Reshapes(), text) == ["Reshape", "Reshape"]


def test_squeeze_undoes_unsqueeze() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) <int64[1] a = {1}, int64[1] b = {-2}>
      { c = Exp(x) d = Unsqueeze(c, a) e = Squeeze(d, b) y = Neg(e) }"""
    assert ops_after(Reshapes(), text) == ["Exp", "Neg"]


def test_a_shape_that_nodes_compute_becomes_constant() -> None:
    text = """g (float[b,s,12] x) => (float[b,s,3,4] y) <int64[2] first = {0, 1}, int64[2] heads = {3, 4}> {
      shape = Shape(x) f = Gather(shape, first) t = Concat<axis=0>(f, heads) y = Reshape(x, t) }"""
    after = passed(Reshapes(), text)
    assert [node.op_type for node in after.graph.node] == ["Reshape"]
    found = Values(after.graph).constant(after.graph.node[0].input[1])
    assert found is not None
    assert found.tolist() == [0, 0, 3, 4]


def test_a_shape_of_other_values_stays() -> None:
    text = """g (float[n] x, float[m,k] like) => (float[m,k] y) { shape = Shape(like) y = Reshape(x, shape) }"""
    inputs = {"x": np.ones(6, np.float32), "like": np.ones((2, 3), np.float32)}
    assert ops_after(Reshapes(), text, inputs=inputs) == ["Shape", "Reshape"]


def test_an_empty_batch_reshapes_as_before() -> None:
    text = """g (float[b,s,12] x) => (float[b,s,3,4] y) <int64[2] first = {0, 1}, int64[2] heads = {3, 4}> {
      shape = Shape(x) f = Gather(shape, first) t = Concat<axis=0>(f, heads) y = Reshape(x, t) }"""
    passed(Reshapes(), text, inputs={"x": np.zeros((0, 5, 12), np.float32)})


@pytest.mark.parametrize("opset", [9, 12, 20])
def test_old_operator_sets(opset: int) -> None:
    text = """g (float[2,12] x) => (float[4,6] y) <int64[1] flat = {-1}, int64[2] s = {4, 6}>
      { a = Reshape(x, flat) y = Reshape(a, s) }"""
    assert ops_after(Reshapes(), text, opset=opset) == ["Reshape"]


def test_casts_through_a_wider_type() -> None:
    text = "g (float16[2] x) => (float16[2] y) { a = Exp(x) b = Cast<to=1>(a) c = Cast<to=10>(b) y = Neg(c) }"
    assert ops_after(Casts(), text) == ["Exp", "Neg"]
    text = "g (int32[2] x) => (float[2] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }"
    assert ops_after(Casts(), text) == ["Cast"]


@pytest.mark.parametrize("between", [6, 10, 9])
def test_casts_through_a_narrower_type_stay(between: int) -> None:
    text = f"g (float[2] x) => (float[2] y) {{ a = Cast<to={between}>(x) y = Cast<to=1>(a) }}"
    assert ops_after(Casts(), text) == ["Cast", "Cast"]


def test_indices_are_read_in_int32() -> None:
    text = "g (float[5,2] x, int32[3] i) => (float[3,2] y) { j = Cast<to=7>(i) y = Gather(x, j) }"
    assert ops_after(NarrowIndices(), text) == ["Gather"]


def test_constant_indices_are_stored_in_int32() -> None:
    text = "g (float[5,2] x) => (float[3,2] y) <int64[3] i = {0, -1, 4}> { y = Gather(x, i) }"
    after = passed(NarrowIndices(), text)
    assert [tensor.data_type for tensor in after.graph.initializer] == [TensorProto.INT32]


def test_indices_that_others_read_stay() -> None:
    text = "g (float[5,2] x) => (float[3,2] y, int64[3] z) <int64[3] i = {0, -1, 4}> { y = Gather(x, i) z = Add(i, i) }"
    after = passed(NarrowIndices(), text)
    assert [tensor.data_type for tensor in after.graph.initializer] == [TensorProto.INT64]
