"""Replace a sum times 1/n by a ReduceMean."""

import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


class Means(GraphPass):
    """Given ReduceSum over n elements, and its product with 1/n or its quotient by n. Result: ReduceMean.

    JAX and TensorFlow write means so. In fp16 the sum may be infinite where the mean is not.
    """

    name = "means"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`, whose shapes are inferred. `Tidy` removes sums that no node reads any more."""
        _find(model.graph, None)
        return model


def _find(graph: GraphProto, outer: Values | None) -> None:
    values = Values(graph, outer)
    sums = {node.output[0]: node for node in graph.node if node.op_type == "ReduceSum"}
    for node in graph.node:
        for inner in subgraphs_of(node):
            _find(inner, values)
        if node.op_type not in ("Mul", "Div") or node.domain not in ("", "ai.onnx"):
            continue
        orders = ((0, 1), (1, 0)) if node.op_type == "Mul" else ((0, 1),)
        for of, by in orders:
            total = sums.get(node.input[of])
            if total is not None and _is_share(values, node, total, node.input[by]):
                attributes = [each for each in total.attribute if each.name == "keepdims"]
                mean = helper.make_node("ReduceMean", list(total.input), list(node.output), name=node.name)
                mean.attribute.extend(attributes)
                node.CopyFrom(mean)
                break


def _is_share(values: Values, node: NodeProto, total: NodeProto, by: str) -> bool:
    """Whether `by` is 1/n (or n, if the node is a Div), where n is the number of elements that `total` adds up.

    The rank of `by` must not be higher than that of the sum.
    """
    factor = values.constant(by)
    shape, result = values.shape(total.input[0]), values.shape(total.output[0])
    if factor is None or factor.size != 1 or shape is None or result is None or factor.ndim > len(result):
        return False
    axes = _axes(values, total, len(shape))
    sizes = [shape[axis] for axis in axes]
    if not sizes or values.elem_type(total.input[0]) not in _FLOATS:
        return False
    count = math.prod(size or 0 for size in sizes)
    return count > 0 and _is_rounded(factor.reshape(()), 1 / count if node.op_type == "Mul" else count)


def _is_rounded(factor: NDArray[Any], exact: float) -> bool:
    """Whether `factor` is `exact` rounded to its type.

    False if the type has so few digits there (1e-7 in fp16) that distant numbers round to it too: sum / (n - 1) is not
    a mean.
    """
    # ml_dtypes publishes partial types.
    library: Any = ml_dtypes
    digits = library.finfo(factor.dtype)
    is_near = math.isclose(float(factor.astype(np.float64)), exact, rel_tol=float(digits.eps))
    return is_near and bool(factor == np.float64(exact).astype(factor.dtype))


def _axes(values: Values, total: NodeProto, rank: int) -> list[int]:
    """The axes of a ReduceSum; [] where they are not known, or where it adds up nothing."""
    if len(total.input) > 1 and total.input[1]:
        axes = values.constant(total.input[1])
        if axes is None:
            return []
        if axes.size:
            return [int(each) % rank for each in axes.reshape(-1)]
    return [] if attributes_of(total).get("noop_with_empty_axes", 0) else list(range(rank))
