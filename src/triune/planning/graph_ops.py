"""The operations of an ONNX graph, with the amounts that each computes, reads and writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from triune.core.errors import InvalidArgumentError
from triune.graph.index import label
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.hardware.rules import Facts
from triune.planning.op import PRODUCTS, Op, OpClass
from triune.planning.op_classes import class_of

KEPT: Final = ("Attention", "RMSNormalization", "RotaryEmbedding")
"""Operators that are not core ops, but that a unit computes as one operation."""

_INTEGERS: Final[Mapping[int, str]] = {
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
}
_BITS: Final[Mapping[int, int]] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
}
_FUSING: Final = PRODUCTS | {OpClass.ELEMENTWISE, OpClass.REDUCE}
"""The classes of operations that units compute together with an elementwise operation that follows."""


@dataclass(frozen=True, slots=True)
class _Weight:
    """A value that is known when the model is loaded.

    Attributes:
        elements: the number of its elements.
        bits: the bits of an element and of its part of the scales; None if the value is not packed.
    """

    elements: int
    bits: float | None


def ops_of(model: ModelProto, past_tokens: int = 0) -> list[Op]:
    """The operations of a model that run on each call, in the graph's order.

    Nodes that depend only on constants and on the shapes of inputs are left out.

    Args:
        model: a model of core operators and those of `KEPT`, whose shapes are known.
        past_tokens: for a step of a decoder in the plain form, the number of earlier tokens, which attention reads in
            addition to the input's tokens.

    Raises:
        InvalidArgumentError: the shape of a value is not known; the message names it.
    """
    return _Reader(model.graph, None, past_tokens).ops()


class _Reader:
    """Reads the nodes of a graph."""

    def __init__(self, graph: GraphProto, outer: Values | None, past_tokens: int) -> None:
        self._graph = graph
        self._values = Values(graph, outer)
        self._past_tokens = past_tokens
        self._weights: dict[str, _Weight] = {}
        self._readers: dict[str, int] = {each.name: 1 for each in graph.output}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1

    def ops(self) -> list[Op]:
        found: list[Op] = []
        for node in self._graph.node:
            if self._is_weight(node):
                continue
            op = self._op(node)
            if op.op_class is OpClass.ELEMENTWISE:
                op = self._fused(op, found[-1] if found else None)
            found.append(op)
        return found

    def _is_weight(self, node: NodeProto) -> bool:
        """Whether the results of a node are known when the model is loaded. If so, they are noted as weights."""
        if node.op_type in ("Shape", "Size"):
            # Count a shape as known when the model is loaded, even if the tensor is computed in each run.
            shape = self._values.static_shape(node.output[0])
            self._weights[node.output[0]] = _Weight(prod(shape) if shape is not None else 1, None)
            return True
        inputs = [self._weight(name) for name in node.input if name]
        if not inputs or any(each is None for each in inputs) or node.op_type.startswith("Random"):
            return False
        given = [each for each in inputs if each is not None]
        if node.op_type == "DequantizeLinear":
            values = given[0].elements
            stored = _BITS.get(self._values.elem_type(node.input[0]), 8) * values
            # Count 16 bits for each scale, and nothing for zero points.
            stored += sum(16 * each.elements for each in given[1:2])
            bits = stored / values if values else None
        else:
            bits = max(given, key=lambda each: each.elements).bits
        for name in node.output:
            shape = self._values.static_shape(name)
            self._weights[name] = _Weight(prod(shape) if shape is not None else given[0].elements, bits)
        return True

    def _weight(self, name: str) -> _Weight | None:
        """Return a weight; None if the value is computed from inputs."""
        if name not in self._weights and (tensor := self._values.tensor(name)) is not None:
            self._weights[name] = _Weight(prod(tensor.dims), None)
        return self._weights.get(name)

    def _op(self, node: NodeProto) -> Op:
        computed = [name for name in node.input if name and self._weight(name) is None]
        shapes = [self._shape(name, node) for name in node.output if name]
        kind = node.op_type
        op_class = class_of(kind)
        computes = op_class not in (OpClass.VIEW, OpClass.MOVE)
        op = Op(
            name=node.name or node.output[0],
            op_type=kind,
            op_class=op_class,
            flops=sum(prod(shape) for shape in shapes) if computes else 0,
            read=sum(prod(self._shape(name, node)) for name in computed),
            written=sum(prod(shape) for shape in shapes),
            inputs=tuple(computed),
            outputs=tuple(filter(None, node.output)),
            facts=self._facts(node, computed, shapes),
        )
        constants = [weight for name in node.input if name and (weight := self._weight(name)) is not None]
        # These operators do not read the whole of a constant. Gather, for example, reads only some rows of a table.
        if kind not in ("Gather", "GatherND", "GatherElements", "Reshape", "Slice", "Expand", "Tile", "Pad"):
            largest = max(constants, key=lambda each: each.elements, default=None)
            bits = largest.bits if largest else None
            op = replace(op, weights=sum(each.elements for each in constants), weight_bits=bits)
        match kind:
            case "Conv" | "ConvTranspose":
                return self._conv(node, op, shapes[0])
            case "MatMul" | "Gemm":
                return self._product(node, op, shapes[0])
            case "Attention":
                return self._attention(node, op)
            case "LSTM" | "GRU" | "RNN":
                sequence, batch, *_ = self._shape(node.input[0], node)
                per_row = prod(self._shape(node.input[1], node)) + prod(self._shape(node.input[2], node))
                return replace(op, flops=2 * sequence * batch * per_row)
            case "If" | "Loop":
                inner = [
                    each
                    for graph in subgraphs_of(node)
                    for each in _Reader(graph, self._values, self._past_tokens).ops()
                ]
                return replace(op, flops=sum(each.flops for each in inner), weights=sum(each.weights for each in inner))
            case _:
                return op if op.op_class is not OpClass.REDUCE else replace(op, flops=8 * max(op.read, op.written))

    def _conv(self, node: NodeProto, op: Op, result: Sequence[int]) -> Op:
        kernel = self._shape(node.input[1], node)
        groups = attributes_of(node).get("group", 1)
        if node.op_type == "ConvTranspose":
            image = self._shape(node.input[0], node)
            rows, inner, filters = image[0] * prod(image[2:]), kernel[0] // groups, prod(kernel[1:]) * groups
        else:
            rows, inner, filters = result[0] * prod(result[2:]), prod(kernel[1:]), kernel[0]
        is_depthwise = groups > 1 and kernel[1] < 8
        return replace(
            op,
            op_class=OpClass.DEPTHWISE if is_depthwise else OpClass.CONV,
            flops=2 * rows * inner * filters,
            rows=rows,
            inner=inner,
            columns=filters / groups,
        )

    def _product(self, node: NodeProto, op: Op, result: Sequence[int]) -> Op:
        first, second = (self._shape(name, node) for name in node.input[:2])
        is_transposed = node.op_type == "Gemm" and attributes_of(node).get("transA", 0)
        inner = first[0] if is_transposed else first[-1]
        is_weight = self._weight(node.input[1]) is not None or self._weight(node.input[0]) is not None
        columns = result[-1] if len(second) > 1 else 1
        rows = prod(result) // max(1, columns)
        batch = 1 if is_weight else prod(result[:-2])
        return replace(
            op,
            op_class=OpClass.MATMUL if is_weight else OpClass.PRODUCT,
            flops=2 * prod(result) * inner,
            rows=rows / max(1, batch),
            inner=inner,
            columns=columns,
        )

    def _attention(self, node: NodeProto, op: Op) -> Op:
        attributes = attributes_of(node)
        query, key = self._shape(node.input[0], node), self._shape(node.input[1], node)
        if len(query) == 4:
            batch, heads, queries, size = query
            kv_heads, keys = key[1], key[2]
        else:
            heads, kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
            (batch, queries, width), keys = query, key[1]
            size = width // heads
        # With causal attention, a token attends to half of the input's tokens on average: (keys + 1) / 2.
        own = (keys + 1) / 2 if attributes.get("is_causal", 0) and keys == queries else keys
        seen = own + self._past_tokens
        return replace(
            op,
            flops=4 * batch * queries * seen * heads * size,
            read=op.read + 2 * batch * self._past_tokens * kv_heads * size,
            scratch=batch * heads * queries * (keys + self._past_tokens),
            rows=queries,
            inner=size,
            columns=seen,
        )

    def _fused(self, op: Op, previous: Op | None) -> Op:
        """An elementwise operation, fused with the previous operation if nothing else reads the result of that one."""
        if previous is None or previous.op_class not in _FUSING:
            return op
        own = next((name for name in op.inputs if name in previous.outputs and self._readers.get(name) == 1), None)
        if own is None:
            return op
        read = prod(self._values.static_shape(own) or ())
        return replace(op, is_fused=True, read=max(0, op.read - read), written=0)

    def _facts(self, node: NodeProto, computed: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Facts:
        attributes = attributes_of(node)
        kernel: Sequence[int] = ()
        inner = 0
        if node.op_type in ("Conv", "ConvTranspose"):
            kernel = self._shape(node.input[1], node)[2:]
        elif node.op_type in ("MaxPool", "AveragePool"):
            kernel = attributes["kernel_shape"]
        elif node.op_type in ("MatMul", "Gemm"):
            inner = self._shape(node.input[0], node)[-1]
        integers = [
            name
            for each in (*computed, *node.output)
            if each and (name := _INTEGERS.get(self._values.elem_type(each))) is not None
        ]
        is_indexed = node.op_type in ("Gather", "GatherElements", "GatherND", "Slice") and node.input[1] in computed
        return Facts(
            op=node.op_type,
            name=node.output[0],
            dtype=integers[0] if integers else "fp16",
            shapes=tuple(shapes),
            kernel=tuple(kernel),
            inner=inner,
            has_integers=bool(integers),
            has_computed_index=is_indexed,
        )

    def _shape(self, name: str, node: NodeProto) -> tuple[int, ...]:
        """The shape of a value that `node` reads or writes. Raises InvalidArgumentError if it is not known."""
        shape = self._values.static_shape(name)
        if shape is None and self._values.type(name) is not None and not _is_tensor(self._values.type(name)):
            return ()
        if shape is None:
            raise InvalidArgumentError(
                f"the shape of '{name}', at {label(node)}, is not known before the model runs, so its cost is not "
                "either; fix the inputs on which it depends with --shape or --constant"
            )
        return shape


def _is_tensor(kind: Any) -> bool:
    return kind.WhichOneof("value") == "tensor_type"
