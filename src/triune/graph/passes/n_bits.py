"""Replace MatMulNBits and GatherBlockQuantized, operators of ONNX Runtime's quantizers, by standard operators."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from triune.graph.packed import Packed, as_dequantize, repeat_blocks
from triune.graph.values import attributes_of
from triune.graph.weight_files import array_of
from triune.graph.weights import tensor_of

DOMAIN = "com.microsoft"

_PACKED = {
    2: (TensorProto.INT4, TensorProto.UINT4),
    4: (TensorProto.INT4, TensorProto.UINT4),
    8: (TensorProto.INT8, TensorProto.UINT8),
}
"""For each number of bits, the signed and the unsigned type of the quantization levels. Levels of 2 bits are stored in
4 bits.
"""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def replaced(
    node: NodeProto,
    tensor: Callable[[str], TensorProto | None],
    add: Callable[[TensorProto], None],
    prefix: str,
) -> list[NodeProto] | None:
    """Replace a MatMulNBits by MatMul with a DequantizeLinear of weights (K, N), and Add of its bias.

    Args:
        node: the MatMulNBits, with inputs A (..., K), B (N, blocks, bytes), scales (N, blocks), zero points, the index
            of the block to which each of K weights belongs, and bias.
        tensor: returns the tensor of a constant by name; None for any other value.
        add: called with each new constant.
        prefix: the beginning of the names of new constants and values.

    Returns:
        the nodes; None if the weights are not constants, or not of 2, 4 or 8 bits. If zero points are not integers, or
        each k has a block index of its own, there is no DequantizeLinear: the weights become a constant of floats.
    """
    inputs = dict(enumerate(node.input))
    data, scales, zeros, groups = (tensor(inputs.get(position, "")) for position in range(1, 5))
    attributes = attributes_of(node)
    bits = int(attributes.get("bits", 4))
    is_known = all((found is not None) == bool(inputs.get(position)) for position, found in ((3, zeros), (4, groups)))
    if data is None or scales is None or scales.data_type not in _FLOATS or bits not in _PACKED or not is_known:
        return None
    width, num_outputs, block = (int(attributes[name]) for name in ("K", "N", "block_size"))
    levels = _levels(array_of(data).reshape(num_outputs, -1), bits)
    scale = array_of(scales).reshape(num_outputs, -1)
    zero: NDArray[Any] | None = None
    is_packed_zero = zeros is not None and zeros.data_type == TensorProto.UINT8
    if zeros is not None:
        zero = array_of(zeros).reshape(num_outputs, -1)
        zero = _levels(zero, bits)[:, : scale.shape[1]] if is_packed_zero else zero
    is_integer_zero = zeros is None or is_packed_zero
    if groups is not None:
        group = array_of(groups).reshape(-1)[:width]
        scale, zero = scale[:, group], None if zero is None else zero[:, group]
    packed = _weights(levels[:, :width], scale, zero, bits).transposed(1, 0)
    weight, product = f"{prefix}/weight", f"{prefix}/product" if inputs.get(5) else node.output[0]
    nodes = _dequantize_linear(packed, block, prefix, add, is_dequantized=groups is not None or not is_integer_zero)
    nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
    if inputs.get(5):
        nodes.append(helper.make_node("Add", [product, inputs[5]], list(node.output), name=f"{prefix}/bias"))
    return nodes


def gathered(
    node: NodeProto,
    tensor: Callable[[str], TensorProto | None],
    add: Callable[[TensorProto], None],
    prefix: str,
) -> list[NodeProto] | None:
    """Replace a GatherBlockQuantized by Gather of a DequantizeLinear of weights.

    Args:
        node: the GatherBlockQuantized, with inputs weights (of 4 bits, or bytes with levels of 2, 4 or 8 bits along the
            last axis), indices, scales of blocks along an axis, and zero points.
        tensor: returns the tensor of a constant by name; None for any other value.
        add: called with each new constant.
        prefix: the beginning of the names of new constants and values.

    Returns:
        the nodes; None if the weights are not constants.
    """
    inputs = dict(enumerate(node.input))
    data, scales, zeros = (tensor(inputs.get(position, "")) for position in (0, 2, 3))
    attributes = attributes_of(node)
    if data is None or scales is None or scales.data_type not in _FLOATS or (zeros is None and inputs.get(3)):
        return None
    scale, zero = array_of(scales), None
    if data.data_type == TensorProto.UINT8:
        bits = int(attributes.get("bits", 4))
        if bits not in _PACKED:
            return None
        rows = array_of(data)
        levels = _levels(rows.reshape(-1, rows.shape[-1]), bits).reshape(*rows.shape[:-1], -1)
        if zeros is not None:
            points = array_of(zeros)
            zero = _levels(points.reshape(-1, points.shape[-1]), bits)[:, : scale.shape[-1]].reshape(scale.shape)
        packed = _weights(levels, scale, zero, bits)
    elif data.data_type in (TensorProto.INT4, TensorProto.UINT4):
        kind = np.int8 if data.data_type == TensorProto.INT4 else np.uint8
        zero = None if zeros is None else array_of(zeros).astype(kind)
        packed = Packed(data.data_type, array_of(data).astype(kind), scale, zero)
    else:
        return None
    weight, block = f"{prefix}/weight", int(attributes.get("block_size", 128))
    nodes = _dequantize_linear(packed, block, prefix, add, is_dequantized=False)
    axis = int(attributes.get("gather_axis", 0))
    nodes.append(helper.make_node("Gather", [weight, node.input[1]], list(node.output), name=node.name, axis=axis))
    return nodes


def _dequantize_linear(
    packed: Packed, block: int, prefix: str, add: Callable[[TensorProto], None], *, is_dequantized: bool
) -> list[NodeProto]:
    """Build the DequantizeLinear that computes the value `{prefix}/weight`, or add the value as a constant of floats.

    It becomes a constant if the last block is shorter than the others, or if `is_dequantized`.
    """
    weight = f"{prefix}/weight"
    form = zip(packed.data.shape, packed.scale.shape, strict=True)
    if is_dequantized or any(blocks not in (1, size) and blocks * block != size for size, blocks in form):
        add(tensor_of(weight, _dequantized(packed, block)))
        return []
    unpacking, constants = as_dequantize(packed, weight, prefix)
    for each in constants:
        add(each)
    return [unpacking]


def _dequantized(packed: Packed, block: int) -> NDArray[Any]:
    """Dequantize weights in blocks, the last of which may be shorter: (level - zero point) * scale."""
    shape, scale = packed.data.shape, repeat_blocks(packed.scale, packed.data.shape, block)
    zero = None if packed.zero_point is None else repeat_blocks(packed.zero_point, shape, block)
    shifted = packed.data.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))
    return (shifted * scale.astype(np.float32)).astype(scale.dtype)


def _weights(levels: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, bits: int) -> Packed:
    """Quantized weights from unsigned levels. Without zero points the middle level means 0, so the levels become
    signed.
    """
    signed, unsigned = _PACKED[bits]
    if zero is not None:
        return Packed(unsigned, levels, scale, zero)
    return Packed(signed, (levels.astype(np.int16) - (1 << (bits - 1))).astype(np.int8), scale, None)


def _levels(data: NDArray[Any], bits: int) -> NDArray[Any]:
    """Unpack levels that are stored in bytes (N, n), 8 / bits of them in each byte, the lowest bits first."""
    if bits == 8:
        return data
    shifts = range(0, 8, bits)
    return np.stack([data >> shift & ((1 << bits) - 1) for shift in shifts], axis=-1).reshape(len(data), -1)
