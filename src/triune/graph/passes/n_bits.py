"""ONNX Runtime's products with weights of few bits, which its quantizers write."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from triune.graph.packed import Packed, as_dequantize
from triune.graph.values import attributes_of
from triune.graph.weight_files import array_of
from triune.graph.weights import tensor_of

DOMAIN = "com.microsoft"

_PACKED = {4: (TensorProto.INT4, TensorProto.UINT4), 8: (TensorProto.INT8, TensorProto.UINT8)}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def replaced(
    node: NodeProto,
    tensor: Callable[[str], TensorProto | None],
    add: Callable[[TensorProto], None],
    prefix: str,
) -> list[NodeProto] | None:
    """A MatMulNBits as MatMul with a DequantizeLinear of weights (K, N), and Add of its bias.

    Args:
        node: A (..., K), B (N, blocks, bytes), scales (N, blocks), zero points, the group of each of K, bias.
        tensor: gives what is constant.
        add: takes new constants.
        prefix: begins their names.

    Returns:
        None where the weights are no constants, or of a number of bits other than 4 and 8. Zero points that are no
        whole numbers, and groups in any order, make whole weights.
    """
    inputs = dict(enumerate(node.input))
    data, scales, zeros, groups = (tensor(inputs.get(place, "")) for place in range(1, 5))
    attributes = attributes_of(node)
    bits = int(attributes.get("bits", 4))
    is_known = all((found is not None) == bool(inputs.get(place)) for place, found in ((3, zeros), (4, groups)))
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
    weight, product = f"{prefix}/weight", f"{prefix}/product" if inputs.get(5) else node.output[0]
    if groups is not None or (zeros is not None and not is_packed_zero) or width % block:
        group = np.arange(width) // block if groups is None else array_of(groups)
        middle = np.float32(1 << (bits - 1)) if zero is None else zero[:, group].astype(np.float32)
        whole = (levels[:, :width].astype(np.float32) - middle) * scale[:, group].astype(np.float32)
        add(tensor_of(weight, whole.T.astype(scale.dtype)))
        nodes: list[NodeProto] = []
    else:
        packed = _weights(levels[:, :width], scale, zero, bits).transposed(1, 0)
        unpacking, constants = as_dequantize(packed, weight, prefix)
        for each in constants:
            add(each)
        nodes = [unpacking]
    nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
    if inputs.get(5):
        nodes.append(helper.make_node("Add", [product, inputs[5]], list(node.output), name=f"{prefix}/bias"))
    return nodes


def _weights(levels: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None, bits: int) -> Packed:
    """(N, K). Without zero points the levels are around the middle of their range: signed they need none."""
    signed, unsigned = _PACKED[bits]
    if zero is not None:
        return Packed(unsigned, levels, scale, zero)
    return Packed(signed, (levels.astype(np.int16) - (1 << (bits - 1))).astype(np.int8), scale, None)


def _levels(data: NDArray[Any], bits: int) -> NDArray[Any]:
    """The levels in bytes (N, n): two in each byte, the lower four bits first, where they have 4 bits."""
    if bits == 8:
        return data
    return np.stack([data & 15, data >> 4], axis=-1).reshape(len(data), -1)
