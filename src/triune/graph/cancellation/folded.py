"""Layers into which a centered input, (x - mean) / std, is folded: their weights are divided by std, and their bias
cancels the mean.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from onnx import GraphProto, NodeProto

from triune.core.datatypes import Array
from triune.graph.values import Values, attributes_of

_FAR = 20.0
"""`folded_means` skips a layer if the bias of each result is at most this many times the norm of the weights of that
result: fp16 rounds such a bias by at most 1/100 of the norm.
"""

_MOST_RESULTS = 4096
"""`folded_means` skips a layer if a dimension of its weights or of its bias has more elements than this."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldedMean:
    """The value of a layer's operand at which the layer's bias cancels its products.

    Attributes:
        operand: the name of what the layer reads.
        nodes: the layer, and the Add of its bias if it has one.
        mean: FP64, this value, of a shape that broadcasts to the operand.
        is_certain: whether more results are cancelled than there are numbers in the mean, so that this is no accident.
    """

    operand: str
    nodes: tuple[NodeProto, ...]
    mean: Array
    is_certain: bool


def folded_means(graph: GraphProto, values: Values, operands: Collection[str]) -> Iterator[FoldedMean]:
    """Yield layers (Gemm, Conv, and MatMul with Add, all with constant weights) whose bias is large compared with the
    weights and cancels one mean of the operand.

    Args:
        graph: the main graph of a model.
        values: the values of this graph.
        operands: the possible operands of the layers. Layers with other operands are skipped.
    """
    makers = {name: node for node in graph.node if node.op_type == "MatMul" for name in node.output}
    for node in graph.node:
        if node.op_type != "Add" and (not node.input or node.input[0] not in operands):
            continue
        if node.op_type == "Gemm" and len(node.input) > 2 and not attributes_of(node).get("transA", 0):
            is_turned = bool(attributes_of(node).get("transB", 0))
            yield from _folded(node.input[0], (node,), node.input[1], node.input[2], values, is_turned=is_turned)
        elif node.op_type == "Conv" and len(node.input) > 2:
            yield from _folded(node.input[0], (node,), node.input[1], node.input[2], values)
        elif node.op_type == "Add":
            for position in (0, 1):
                maker = makers.get(node.input[position])
                if maker is not None and maker.input[0] in operands:
                    bias = node.input[1 - position]
                    yield from _folded(maker.input[0], (maker, node), maker.input[1], bias, values)


def _folded(
    operand: str, nodes: tuple[NodeProto, ...], weight: str, bias: str, values: Values, *, is_turned: bool = False
) -> Iterator[FoldedMean]:
    sizes = [tensor.dims for name in (weight, bias) if (tensor := values.tensor(name)) is not None]
    if len(sizes) != 2 or max(sizes[0], default=0) > _MOST_RESULTS:
        return
    array, added = values.constant(weight), values.constant(bias)
    if array is None or added is None or array.ndim < 2 or added.dtype.kind != "f":
        return
    is_conv = nodes[0].op_type == "Conv"
    if is_conv:
        if attributes_of(nodes[0]).get("group", 1) != 1:
            return
        lengths = np.linalg.norm(array.astype(np.float64).reshape(len(array), -1), axis=1)
        matrix = array.astype(np.float64).sum(axis=tuple(range(2, array.ndim))).T
    elif array.ndim == 2:
        matrix = (array.T if is_turned else array).astype(np.float64)
        lengths = np.linalg.norm(matrix, axis=0)
    else:
        return
    offset = added.astype(np.float64).reshape(-1)
    if offset.size != matrix.shape[1] or not lengths.all() or np.max(np.abs(offset) / lengths) <= _FAR:
        return
    scaled, target = matrix / lengths, -offset / lengths
    # Solve mean @ scaled = target by least squares (normal equations).
    mean = cast("Array", np.linalg.solve(scaled @ scaled.T + 1e-9 * np.eye(len(scaled)), scaled @ target))
    if np.linalg.norm(mean @ scaled - target) >= np.linalg.norm(target) / 10:
        return
    shaped = mean.reshape(-1, *(1,) * (array.ndim - 2)) if is_conv else mean
    yield FoldedMean(operand, nodes, shaped, is_certain=matrix.shape[0] < matrix.shape[1])
