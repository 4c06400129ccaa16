"""Match linear layers: MatMul (and an Add) or Gemm with constant weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from triune.graph.index import Index, perm_of
from triune.graph.match.no_match import NoMatchError
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class Linear:
    """alpha * x @ weight + beta * bias.

    Attributes:
        x: the name of a value (..., num_inputs) in fp32 or fp16 that is not a constant.
        weight: the name of a constant or of quantized weights, (num_inputs, num_outputs), or (num_outputs, num_inputs)
            if `is_transposed`.
        is_transposed: whether the weight is transposed.
        num_inputs: the size of the last axis of x.
        num_outputs: the size of the last axis of the result.
        alpha: the factor of the matrix product.
        bias: the name of a value that broadcasts against the result; "" if there is none.
        beta: the factor of the bias.
        nodes: the Gemm, or the MatMul and the Add of its bias; the last one gives the result.
    """

    x: str
    weight: str
    is_transposed: bool
    num_inputs: int
    num_outputs: int
    alpha: float
    bias: str
    beta: float
    nodes: Sequence[NodeProto]


def match_linear(index: Index, node: NodeProto) -> Linear | None:
    """The linear layer that begins with a MatMul or Gemm, or None.

    Raises:
        NoMatchError: it is a Gemm with transA.
    """
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    x, weight, turned = node.input[0], *_weight(index, node.input[1])
    if not index.is_float(x) or index.rank(weight) != 2 or not index.is_weight(weight):
        return None
    shape = index.values.static_shape(weight)
    if shape is None or index.is_constant(x):
        return None
    attributes = attributes_of(node)
    if attributes.get("transA", 0):
        raise NoMatchError("its first operand is transposed (transA)")
    is_transposed = bool(attributes.get("transB", 0)) != turned
    num_inputs, num_outputs = shape[::-1] if is_transposed else shape
    alpha, beta = float(attributes.get("alpha", 1)), float(attributes.get("beta", 1))
    bias, nodes = node.input[2] if len(node.input) > 2 else "", [node]
    if node.op_type == "MatMul":
        bias, nodes = _added_bias(index, node, num_outputs)
    return Linear(x, weight, is_transposed, num_inputs, num_outputs, alpha, bias, beta, nodes)


def _weight(index: Index, name: str) -> tuple[str, bool]:
    """Look back through a Transpose: returns the name of its operand, and True; if no Transpose computes the value,
    `name` and False.
    """
    transpose = index.producer(name, "Transpose")
    if transpose is None or perm_of(transpose, 2) != (1, 0):
        return name, False
    return transpose.input[0], True


def bias_vector(index: Index, linear: Linear) -> NDArray[Any] | None:
    """The bias times beta, (num_outputs); None if there is no bias, or it is not a constant vector."""
    array = index.constant(linear.bias) if linear.bias else None
    width = linear.num_outputs
    if array is None or array.size not in (1, width) or any(size != 1 for size in array.shape[:-1]):
        return None
    return np.broadcast_to(array.reshape(-1) * array.dtype.type(linear.beta), (width,))


def _added_bias(index: Index, matmul: NodeProto, width: int) -> tuple[str, list[NodeProto]]:
    """Find the Add that adds a constant vector to the product of a MatMul, and is the only node that reads it.

    Returns:
        the name of the vector, the MatMul and the Add; "" and the MatMul alone if there is no such Add.
    """
    add = index.only_reader(matmul.output[0])
    for name in add.input if add is not None and add.op_type == "Add" else ():
        dims = index.dims(name)
        if add is None or dims is None or not index.is_constant(name) or dims[-1:] != (width,):
            continue
        if all(dim == 1 for dim in dims[:-1]) and len(dims) <= (index.rank(matmul.input[0]) or 0):
            return name, [matmul, add]
    return "", [matmul]
