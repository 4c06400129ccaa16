"""Find the weights of a model that can be compressed, and why others cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.values import attributes_of, names_read, subgraphs_of
from triune.graph.weight_files import array_of

FEWEST = 1024
"""Weights of fewer elements are not compressed: that would save next to nothing."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that can be compressed.

    Attributes:
        name: the initializer.
        tensor: its data, perhaps in a file.
        reader: the operator by which its axes are known: MatMul, Gemm, Conv, ConvTranspose or Gather.
        readers: for each node that reads it, the node's name and operator.
        axis: the axis of output channels; of a table of Gather, its rows.
        inner: the axis of input channels.
    """

    name: str
    tensor: TensorProto
    reader: str
    readers: Sequence[tuple[str, str]]
    axis: int
    inner: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.tensor.dims)

    @property
    def num_elements(self) -> int:
        """The number of weights."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Kept:
    """A weight that stays as it is.

    Attributes:
        name: the initializer.
        num_elements: how many weights it has.
        reason: why it stays.
    """

    name: str
    num_elements: int
    reason: str


def find_weights(model: ModelProto) -> tuple[list[Weight], list[Kept]]:
    """Find the weights of at least `FEWEST` elements, in the order of their first readers.

    Args:
        model: a result of `prepare`; not changed.

    Returns:
        the weights that can be compressed, and the others.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    outputs = {value.name for value in graph.output}
    inner = {name for node in graph.node for body in subgraphs_of(node) for name in names_read(body)}
    tensors = {tensor.name: tensor for tensor in graph.initializer if prod(tensor.dims) >= FEWEST}
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in tensors:
                readers.setdefault(name, []).append((node, index))
    found: list[Weight] = []
    kept: list[Kept] = []
    for name, uses in readers.items():
        tensor = tensors[name]
        reason = _reason(tensor, uses, is_input=name in inputs, is_output=name in outputs, is_in_body=name in inner)
        axes = next(filter(None, (_axes(node, index, len(tensor.dims)) for node, index in uses)), None)
        if reason is None and axes is None:
            ops = " and ".join(dict.fromkeys(node.op_type for node, _ in uses))
            is_matrix = len(tensor.dims) > 1
            reason = f"no form is known for what {ops} reads there" if is_matrix else "it is a vector, such as a bias"
        if reason is not None or axes is None:
            kept.append(Kept(name, prod(tensor.dims), reason or ""))
            continue
        reader, axis, inner_axis = axes
        nodes = [(node.name, node.op_type) for node, _ in uses]
        found.append(Weight(name, tensor, reader, nodes, axis, inner_axis))
    return found, kept


def _reason(
    tensor: TensorProto, uses: Sequence[tuple[NodeProto, int]], *, is_input: bool, is_output: bool, is_in_body: bool
) -> str | None:
    """Why a weight cannot be compressed; None if it can."""
    if tensor.data_type not in _FLOATS:
        is_quantized = any(node.op_type in ("DequantizeLinear", "MatMulNBits", "MatMulInteger") for node, _ in uses)
        name = TensorProto.DataType.Name(tensor.data_type)
        return f"it is quantized already ({name})" if is_quantized else f"it is {name}"
    if is_input:
        return "it is the default of an input, which a request may replace"
    if is_output:
        return "it is an output"
    if is_in_body:
        return "the body of an If, Loop or Scan reads it"
    if not np.isfinite(array_of(tensor)).all():
        return "it has NaN or infinities"
    return None


def _axes(node: NodeProto, index: int, rank: int) -> tuple[str, int, int] | None:
    """The operator, the axis of output channels and the axis of input channels; None if the operand is not a weight
    that can be compressed.
    """
    if node.domain not in _STANDARD or rank < 2:
        return None
    attributes = attributes_of(node)
    match node.op_type, index:
        case "MatMul", 1:
            return "MatMul", rank - 1, rank - 2
        case "MatMul", 0:
            return "MatMul", rank - 2, rank - 1
        case "Gemm", 1:
            axis = 0 if attributes.get("transB", 0) else 1
            return "Gemm", axis, 1 - axis
        case "Conv", 1:
            return "Conv", 0, 1
        case "ConvTranspose", 1:
            return "ConvTranspose", 1, 0
        case "Gather", 0 if attributes.get("axis", 0) == 0:
            return "Gather", 0, rank - 1
        case _:
            return None
