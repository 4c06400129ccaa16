"""Linear layers as 1x1 convolutions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from triune.core.errors import InternalError
from triune.graph.ane.borders import Borders
from triune.graph.ane.index import Index, label
from triune.graph.ane.report import LINEAR_TO_CONV
from triune.graph.ane.step import Step
from triune.graph.values import attributes_of

MAX_CHANNELS = 65536
"""The Neural Engine's largest dimension. A vocabulary may be larger."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer: source (B, S, K), weight (K, N) and bias (N).

    Attributes:
        source: its operand, before it was flattened to rows.
        is_flat: the result is wanted as rows (B * S, N).
        weight: name of the weight in the form of a convolution, (N, K, 1, 1).
        bias: the bias, None if there is none.
        num_outputs: N.
    """

    source: str
    is_flat: bool
    weight: str
    bias: NDArray[Any] | None
    num_outputs: int


class LinearToConv(Step):
    """Given MatMul (and an Add) or Gemm of (B, S, C) and constant weights. Result: a 1x1 Conv of (B, C, 1, S).

    Gemm of rows that a Reshape made of (B, S, C) counts too. Rows that have no sequence stay: their last axis would be
    1, which the Neural Engine pads to 64 bytes.
    """

    name = LINEAR_TO_CONV

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        borders = Borders(index)
        build = index.build
        nodes: list[NodeProto] = []
        done: set[str] = set()
        for node in model.graph.node:
            if node.output and node.output[0] in done:
                continue
            linear = self._linear(index, node) if node.op_type in ("MatMul", "Gemm") else None
            if linear is None:
                nodes.append(node)
                continue
            last, bias = _with_bias(index, node, linear)
            done.add(last.output[0])
            inputs = [borders.enter(linear.source), linear.weight]
            if bias is not None:
                inputs.append(index.weight(bias))
            inside = build.op("Conv", *inputs, kernel_shape=[1, 1])
            if linear.is_flat:
                whole = build.name()
                borders.leave(inside, whole)
                build.put("Reshape", [whole, build.ints(-1, linear.num_outputs)], [last.output[0]])
            else:
                borders.leave(inside, last.output[0])
            nodes += index.take()
            self._report.change(self.name, label(node), "1x1 convolution")
        index.replace(nodes)
        return model

    def _linear(self, index: Index, node: NodeProto) -> _Linear | None:
        """What the node computes; None if it is no linear layer, or one that stays."""
        x, weights = node.input[0], node.input[1]
        attributes = attributes_of(node)
        rank = index.rank(x)
        if not index.is_float(x) or index.rank(weights) != 2 or not index.is_weight(weights):
            return None
        is_turned = bool(attributes.get("transB", 0))
        shape = index.values.static_shape(weights)
        if shape is None or index.is_constant(x):
            return None
        width, num_outputs = shape[::-1] if is_turned else shape
        source, reason = x, None
        if rank == 2:
            source = _unflattened(index, x, width)
            reason = None if source != x else "rows without a sequence: the last axis would be 1"
        elif rank != 3:
            reason = f"an operand of rank {rank} has no layout (B, C, 1, S)" if rank else "an operand of unknown rank"
        if attributes.get("transA", 0):
            reason = "its operand is transposed"
        if max(width, num_outputs) > MAX_CHANNELS:
            reason = f"{max(width, num_outputs)} channels; the Neural Engine has at most {MAX_CHANNELS}"
        bias = _gemm_bias(index, node, num_outputs)
        if bias is None and len(node.input) > 2 and node.input[2]:
            reason = reason or "its bias is no constant vector"
        if reason is not None:
            self._report.leave(self.name, label(node), reason)
            return None
        weight = _conv_weight(index, weights, float(attributes.get("alpha", 1)), is_turned=is_turned)
        return _Linear(source, rank == 2, weight, bias, num_outputs)


def _unflattened(index: Index, rows: str, width: int) -> str:
    """The value (B, S, C) that was reshaped to (B * S, C); `rows` itself if there is none."""
    node = index.maker(rows, "Reshape")
    dims = index.dims(node.input[0]) if node is not None else None
    return node.input[0] if node is not None and dims is not None and len(dims) == 3 and dims[2] == width else rows


def _gemm_bias(index: Index, node: NodeProto, width: int) -> NDArray[Any] | None:
    """Gemm's C, if it is a vector."""
    c = index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if c is None or c.size not in (1, width) or (c.ndim == 2 and c.shape[0] != 1) or c.ndim > 2:
        return None
    return np.broadcast_to(c.reshape(-1) * c.dtype.type(attributes_of(node).get("beta", 1)), (width,))


def _with_bias(index: Index, node: NodeProto, linear: _Linear) -> tuple[NodeProto, NDArray[Any] | None]:
    """The last node of the layer and its bias: an Add of a constant vector is the convolution's bias."""
    add = index.only_reader(node.output[0])
    if linear.bias is not None or node.op_type != "MatMul" or add is None or add.op_type != "Add":
        return node, linear.bias
    for name in add.input:
        bias = index.constant(name)
        width = linear.num_outputs
        if bias is not None and bias.size == width and bias.ndim <= 3 - linear.is_flat and bias.shape[-1:] == (width,):
            return add, bias.reshape(width)
    return node, None


def _conv_weight(index: Index, name: str, factor: float, *, is_turned: bool) -> str:
    """The weights (K, N), or turned (N, K), as (N, K, 1, 1), times `factor`. Packed ones stay packed."""
    packed = index.packed(name)
    if packed is not None:
        return index.packed_weight((packed if is_turned else packed.transposed(1, 0)).with_ones(2).times(factor))
    array = index.constant(name)
    if array is None:
        raise InternalError(f"the weight '{name}' is no constant")
    if factor != 1:
        array = array * array.dtype.type(factor)
    return index.weight((array if is_turned else array.T)[:, :, None, None])
