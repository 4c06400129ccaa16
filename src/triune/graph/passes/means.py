"""Replace a sum of n elements times 1/n by a ReduceMean."""

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
    """Given ReduceSum over n elements, then Mul by 1/n or Div by n. Result: ReduceMean.

    JAX and TensorFlow export means this way. In fp16 the sum may overflow although the mean does not.
    """

    name = "means"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace sums times 1/n in `model`, in place, by ReduceMean. Its shapes must have been inferred (`Infer`).

        The pass `Tidy` removes sums that no node reads any more.
        """
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
            if total is not None and _is_one_over_n(values, node, total, node.input[by]):
                attributes = [each for each in total.attribute if each.name == "keepdims"]
                mean = helper.make_node("ReduceMean", list(total.input), list(node.output), name=node.name)
                mean.attribute.extend(attributes)
                node.CopyFrom(mean)
                break


def _is_one_over_n(values: Values, node: NodeProto, total: NodeProto, by: str) -> bool:
    """Whether the constant `by` is 1/n, or n if the node is a Div, where n is the number of elements that the ReduceSum
    `total` adds up.

    False as well if `by` has a higher rank than the sum, so that broadcasting would change the shape.
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
    """Whether `factor` is the number `exact`, rounded to the type of `factor`.

    False if the number is so small that the type has few significant bits for it (1e-7 in fp16): then 1 / (n - 1) might
    round to the same number, and sum / (n - 1) is not a mean.
    """
    # `Any`, since the type annotations of ml_dtypes are incomplete.
    library: Any = ml_dtypes
    limits = library.finfo(factor.dtype)
    is_near = math.isclose(float(factor.astype(np.float64)), exact, rel_tol=float(limits.eps))
    return is_near and bool(factor == np.float64(exact).astype(factor.dtype))


def _axes(values: Values, total: NodeProto, rank: int) -> list[int]:
    """The axes of a ReduceSum; [] if they are not known, or if it reduces no axis."""
    if len(total.input) > 1 and total.input[1]:
        axes = values.constant(total.input[1])
        if axes is None:
            return []
        if axes.size:
            return [int(each) % rank for each in axes.reshape(-1)]
    return [] if attributes_of(total).get("noop_with_empty_axes", 0) else list(range(rank))
