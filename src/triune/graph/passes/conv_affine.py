"""Fold a scale and shift for each channel, after a convolution, into the weights and bias of the convolution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, names_read, subgraphs_of
from triune.graph.weight_files import WeightFile

_Array = NDArray[Any]

_LARGEST = 2.0**32
"""The largest absolute value of a weight, and of a factor's reciprocal. With these limits, a sum overflows only for
inputs beyond 1e28.
"""


@dataclass(frozen=True, slots=True)
class _Affine:
    """y = x * factor + shift in each channel. `factor` and `shift` are fp64, of one element or one for each channel."""

    factor: _Array
    shift: _Array


class ConvAffine(GraphPass):
    """Given Conv or ConvTranspose with constant weights, followed by BatchNormalization, or by Mul, Add or Sub by
    constants.

    The constants have one element, or one for each channel. Result: the convolution alone, with new weights and a new
    bias. Nothing is changed if a weight would overflow or become 0, or if factors are so large that what overflows in
    the model would not do so any more: x * 1e30 * 1e-30 is infinite for x = 1e10. A Div stays, too: a quotient of
    integers may be exact, while the product with the reciprocal is not.
    """

    name = "conv_affine"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for the new weights."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Fold scales and shifts after convolutions in `model`, in place, into their weights and biases.

        `Tidy` removes constants that no node reads any more.
        """
        _fuse(model.graph, None, Names(model.graph), self._file)
        return model


def _fuse(graph: GraphProto, outer: Values | None, used: Names, file: WeightFile) -> None:
    values = Values(graph, outer)
    nodes = list(graph.node)
    kept = {value.name for value in graph.output}
    readers: dict[str, list[int]] = {}
    for position, node in enumerate(nodes):
        for inner in subgraphs_of(node):
            _fuse(inner, values, used, file)
            kept |= names_read(inner)
        for name in node.input:
            readers.setdefault(name, []).append(position)
    fused: set[int] = set()
    for node in nodes:
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain not in ("", "ai.onnx"):
            continue
        constants = _constants(values, node)
        is_changed = False
        while constants is not None:
            made = node.output[0]
            positions = readers.get(made, [])
            following = nodes[positions[0]] if len(positions) == 1 and made not in kept else None
            after = None if following is None else _folded(values, node, constants, following)
            if following is None or after is None:
                break
            constants, is_changed = after, True
            node.output[0] = following.output[0]
            fused.update(positions)
        if is_changed and constants is not None:
            names = [used.value(f"{node.output[0]}/{role}") for role in ("weight", "bias")]
            graph.initializer.extend(map(file.tensor, names, constants))
            node.input[:] = [node.input[0], *names]
    if fused:
        copies = [
            NodeProto.FromString(node.SerializeToString())
            for position, node in enumerate(nodes)
            if position not in fused
        ]
        del graph.node[:]
        graph.node.extend(copies)


def _constants(values: Values, conv: NodeProto) -> tuple[_Array, _Array] | None:
    """Weight and bias of a convolution; None where they are not constants of fp32."""
    weight = values.constant(conv.input[1])
    if weight is None or weight.dtype != np.float32:
        return None
    if len(conv.input) < 3 or not conv.input[2]:
        return weight, np.zeros(_num_channels(conv, weight), np.float32)
    bias = values.constant(conv.input[2])
    return None if bias is None else (weight, bias)


def _num_channels(conv: NodeProto, weight: _Array) -> int:
    """The number of output channels of a convolution."""
    groups = int(attributes_of(conv).get("group", 1))
    return weight.shape[1] * groups if conv.op_type == "ConvTranspose" else weight.shape[0]


def _folded(
    values: Values, conv: NodeProto, constants: tuple[_Array, _Array], following: NodeProto
) -> tuple[_Array, _Array] | None:
    """The weight and bias with which a convolution also computes the node `following`; None if that is not possible."""
    weight, bias = constants
    num_channels = _num_channels(conv, weight)
    affine = _affine(values, following, conv.output[0], weight.ndim, num_channels)
    if affine is None:
        return None
    factor = np.broadcast_to(affine.factor, (num_channels,))
    factors = along_channels(factor, weight, conv)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        new_weight = (weight * factors).astype(np.float32)
        new_bias = (bias * factor + affine.shift).astype(np.float32)
    if np.abs(weight).max(initial=0) > _LARGEST or np.abs(factor[factor != 0]).min(initial=1) < 1 / _LARGEST:
        return None
    is_lost = (np.abs(new_weight) < np.finfo(np.float32).tiny) & (weight != 0) & (factors != 0)
    if is_lost.any() or not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return None
    return new_weight, new_bias


def along_channels(factor: _Array, weight: _Array, conv: NodeProto) -> _Array:
    """Reshape a factor for each output channel so that it broadcasts against `weight`.

    The weight of a Conv is (channels, inputs / groups, ...), the weight of a ConvTranspose is (inputs, channels /
    groups, ...), where the inputs of a group are consecutive.
    """
    spatial = [1] * (weight.ndim - 2)
    if conv.op_type == "Conv":
        return factor.reshape(-1, 1, *spatial)
    groups = int(attributes_of(conv).get("group", 1))
    rows = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(*weight.shape[:2], *spatial)


def _affine(values: Values, node: NodeProto, made: str, rank: int, num_channels: int) -> _Affine | None:
    """The factor and shift that a node applies to each channel of the value `made`; None for any other node."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        return _of_batch_norm(values, node, made)
    if node.op_type not in ("Mul", "Add", "Sub") or (node.op_type == "Sub" and node.input[0] != made):
        return None
    other = node.input[1] if node.input[0] == made else node.input[0]
    operand = values.constant(other)
    if operand is None or operand.ndim > rank or not np.isfinite(operand).all():
        return None
    form = (1,) * (rank - operand.ndim) + operand.shape
    if form[0] != 1 or form[1] not in (1, num_channels) or any(size != 1 for size in form[2:]):
        return None
    by_channel = operand.reshape(-1).astype(np.float64)
    kinds: Mapping[str, _Affine] = {
        "Mul": _Affine(by_channel, np.zeros(1)),
        "Add": _Affine(np.ones(1), by_channel),
        "Sub": _Affine(np.ones(1), -by_channel),
    }
    return kinds[node.op_type]


def _of_batch_norm(values: Values, node: NodeProto, made: str) -> _Affine | None:
    """The factor and shift of (x - mean) / sqrt(variance + epsilon) * scale + bias; None if they are not constant."""
    attributes = attributes_of(node)
    constants = [values.constant(name) for name in node.input[1:5]]
    is_training = attributes.get("training_mode", 0) or len([name for name in node.output if name]) > 1
    if is_training or node.input[0] != made or any(each is None for each in constants):
        return None
    scale, bias, mean, variance = (each.astype(np.float64) for each in constants if each is not None)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        return _Affine(factor, bias - mean * factor)
