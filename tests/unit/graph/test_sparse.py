"""Sparse constants in both of their forms, and those that are none."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.check import evaluate
from triune.graph.normalize import normalize

DENSE = np.array([[0, 0, 2], [3, 0, 0]], np.float32)


def sparse(dims: list[int], places: Any) -> Any:
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places)), dims)


def product() -> ModelProto:
    """Of x and `w`, and of a Constant node in a branch."""
    return model_of(
        "agraph (float[1,2] x, bool c) => (float[1,3] y) { p = MatMul (x, w)  "
        "y = If (c) <then_branch = a () => (float[1,3] q) { q = Neg (p) }, else_branch = b () => (float[1,3] r) "
        "{ v = Constant <value_float = 1.0> ()  r = MatMul (x, v) }> }"
    )


@pytest.mark.parametrize("places", [[2, 3], [[0, 2], [1, 0]]])
def test_sparse_constants_become_dense(places: Any) -> None:
    model = product()
    model.graph.sparse_initializer.append(sparse([2, 3], places))
    attribute = model.graph.node[1].attribute[1].g.node[0].attribute[0]
    attribute.CopyFrom(helper.make_attribute("sparse_value", sparse([2, 3], places)))
    normal = normalize(model)
    x = np.array([[5, 7]], np.float32)
    for is_negative in (True, False):
        (y,) = evaluate(normal, {"x": x, "c": np.array(is_negative)})
        np.testing.assert_array_equal(y, x @ DENSE * (-1 if is_negative else 1))


def test_places_outside_and_sizes_beyond_memory_are_refused() -> None:
    model = product()
    model.graph.sparse_initializer.append(sparse([2, 3], [2, 6]))
    with pytest.raises(InvalidArgumentError, match="the sparse constant 'w' is not valid ONNX"):
        normalize(model)
    model.graph.sparse_initializer[0].CopyFrom(sparse([1 << 20, 1 << 20], [2, 3]))
    with pytest.raises(UnsupportedError, match="takes more than 2 GiB"):
        normalize(model)


def test_the_element_type_stays() -> None:
    model = model_of("agraph (float16[1,2] x) => (float16[1,3] y) { y = MatMul (x, w) }")
    given = sparse([2, 3], [2, 3])
    given.values.CopyFrom(numpy_helper.from_array(np.array([2, 3], np.float16), "w"))
    model.graph.sparse_initializer.append(given)
    assert normalize(model).graph.initializer[0].data_type == TensorProto.FLOAT16
