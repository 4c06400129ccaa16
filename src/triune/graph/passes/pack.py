"""Rewrite all the forms in which exporters write quantized weights into one form: DequantizeLinear of constants."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from triune.graph.conversion.problems import note_origin
from triune.graph.names import Names
from triune.graph.packed import Packed, as_dequantize, dequantized, packed_of
from triune.graph.passes import n_bits
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.graph.weight_files import array_of
from triune.graph.weights import Large, NoneLarge, tensor_of

_STANDARD = ("", "ai.onnx")
_BYTES = (TensorProto.INT8, TensorProto.UINT8)


class Pack(GraphPass):
    """Given quantized weights, integers of few bits, and the nodes that dequantize them. Result: DequantizeLinear.

    These nodes are Cast, Sub and Mul by constants (`(q - zero) * scale`), or ONNX Runtime's MatMulNBits and
    GatherBlockQuantized. A Transpose of a DequantizeLinear becomes a DequantizeLinear of transposed weights. Weights in
    FLOAT8, and those whose last block is shorter than the others, become constants of floats. All other nodes stay.
    """

    name = "pack"

    def __init__(self, large: Large | None = None) -> None:
        """`large` has the large constants, which are kept out of the graph while passes run; new constants are added to
        it.
        """
        self._large = large or NoneLarge()

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write quantized weights in `model`, in place, as DequantizeLinear of constants.

        New values have no types yet: run `Infer` afterwards.
        """
        self._pack(model.graph, None, Names(model.graph))
        return model

    def _pack(self, graph: GraphProto, outer: Values | None, names: Names) -> None:
        view = _View(graph, outer, self._large)
        nodes: list[NodeProto] = []
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                self._pack(subgraph, view.values, names)
            found = _packed(view, node, names.prefix(f"{node.output[0]}/packed")) if node.output else None
            if found and node.domain == n_bits.DOMAIN:
                note_origin(found, node)
            nodes += [node] if found is None else found
        if len(nodes) != len(graph.node) or any(a is not b for a, b in zip(nodes, graph.node, strict=True)):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)


class _View:
    """The producers and constants of a graph. New constants of the main graph are added to `large`."""

    def __init__(self, graph: GraphProto, outer: Values | None, large: Large) -> None:
        self.values = Values(graph, outer)
        self._graph = graph
        self._large = large
        self._own = large if outer is None else NoneLarge()
        self._producers = {name: node for node in graph.node for name in node.output if name}

    def tensor(self, name: str) -> TensorProto | None:
        """The tensor of a constant; None for any other value."""
        return self._large.get(name) or self.values.tensor(name)

    def producer(self, name: str, op_type: str) -> NodeProto | None:
        """The node that computes `name`, if its operator is the standard operator `op_type`; else None."""
        node = self._producers.get(name)
        return node if node is not None and node.op_type == op_type and node.domain in _STANDARD else None

    def add(self, tensor: TensorProto) -> None:
        """Add a new constant."""
        self._own.add(self._graph, tensor)


def _packed(view: _View, node: NodeProto, prefix: str) -> list[NodeProto] | None:
    """The nodes that replace `node`; None if it stays."""
    if node.op_type == "MatMulNBits" and node.domain == n_bits.DOMAIN:
        return n_bits.replaced(node, view.tensor, view.add, prefix)
    if node.op_type == "GatherBlockQuantized" and node.domain == n_bits.DOMAIN:
        return n_bits.gathered(node, view.tensor, view.add, prefix)
    if node.domain not in _STANDARD:
        return None
    if node.op_type == "DequantizeLinear" and packed_of(node, view.tensor) is None:
        whole = dequantized(node, view.tensor)
        if whole is not None:
            view.add(tensor_of(node.output[0], whole))
        return None if whole is None else []
    found: Packed | None = None
    if node.op_type == "Mul":
        found = _quantized(view, *node.input) or _quantized(view, *reversed(node.input))
    elif node.op_type == "Transpose":
        unpacking = view.producer(node.input[0], "DequantizeLinear")
        packed = None if unpacking is None else packed_of(unpacking, view.tensor)
        if packed is not None:
            found = packed.transposed(*attributes_of(node).get("perm", range(packed.data.ndim - 1, -1, -1)))
    unpacking, constants = (None, []) if found is None else as_dequantize(found, node.output[0], prefix)
    for tensor in constants:
        view.add(tensor)
    return None if unpacking is None else [unpacking]


def _quantized(view: _View, shifted: str, factor: str) -> Packed | None:
    """The quantized weights q, if `shifted` is q - zero and `factor` their scale; None for other values."""
    scale = view.tensor(factor)
    if scale is None or scale.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return None
    name, zero = shifted, None
    difference = view.producer(shifted, "Sub")
    if difference is not None:
        name, zero = difference.input[0], _integers(view, difference.input[1])
        if zero is None:
            return None
    cast = view.producer(name, "Cast")
    data = None if cast is None else view.tensor(cast.input[0])
    if cast is None or data is None or data.data_type not in _BYTES or attributes_of(cast)["to"] != scale.data_type:
        return None
    array, scales = array_of(data), array_of(scale)
    common_shape = _common_shape(array.shape, scales.shape, () if zero is None else zero.shape)
    if common_shape is None:
        return None
    if zero is not None:
        limits = np.iinfo(array.dtype)
        if zero.min() < limits.min or zero.max() > limits.max:
            return None
        zero = _broadcast(zero, common_shape).astype(array.dtype) if zero.any() else None
    return Packed(data.data_type, array, _broadcast(scales, common_shape), zero)


def _integers(view: _View, name: str) -> NDArray[Any] | None:
    """The value of a constant, perhaps cast, if all of its elements are integers; else None."""
    cast = view.producer(name, "Cast")
    tensor = view.tensor(cast.input[0] if cast is not None else name)
    array = None if tensor is None else array_of(tensor)
    return array if array is not None and array.size and bool((array == np.round(array)).all()) else None


def _common_shape(shape: tuple[int, ...], *others: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape to which the shapes `others` broadcast, with axes of size 1 in front so that it has as many axes as
    `shape`. None if it does not broadcast to `shape` along equal sizes, or if more than one of its axes is larger than
    1.
    """
    if not shape or 0 in shape or any(len(other) > len(shape) for other in others):
        return None
    common_shape = np.broadcast_shapes((1,) * len(shape), *others)
    many = [axis for axis, size in enumerate(common_shape) if size != 1]
    return common_shape if len(many) <= 1 and all(common_shape[axis] == shape[axis] for axis in many) else None


def _broadcast(array: NDArray[Any], common_shape: tuple[int, ...]) -> NDArray[Any]:
    return np.broadcast_to(array, common_shape)
