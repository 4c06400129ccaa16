"""Quantized weights: a DequantizeLinear of constant integers of 8 or 4 bits, called packed here.

DequantizeLinear is a core operator and never folded. So a conversion can keep the weights small if its runtime can
compute with them, and dequantize them (`Packed.whole`) if it cannot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from triune.graph.values import attributes_of
from triune.graph.weight_files import array_of
from triune.graph.weights import tensor_of

SMALL = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)
"""The element types of quantized weights."""

_SMALL_FLOATS = (
    *(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ),
    TensorProto.FLOAT4E2M1,
)
"""Float types of 8 and 4 bits. Weights of these types are dequantized, since no runtime keeps them."""

_SCALES = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Quantized weights, scale * (data - zero_point), with a scale and a zero point for each block of the data.

    Attributes:
        elem_type: the element type of the data and the zero points, one of SMALL.
        data: the integers, as an array of int8 or uint8 even if the element type has 4 bits.
        scale: the scales in fp32 or fp16, with the rank of the data. data.shape / scale.shape is the shape of a block.
        zero_point: integers of the same type as the data and the same shape as the scale; None if all are 0.
    """

    elem_type: int
    data: NDArray[Any]
    scale: NDArray[Any]
    zero_point: NDArray[Any] | None

    @property
    def axes(self) -> Sequence[int]:
        """The axes along which there are several scales."""
        return [axis for axis, size in enumerate(self.scale.shape) if size > 1]

    @property
    def is_blocked(self) -> bool:
        """Whether there are blocks: along an axis, a scale belongs to several elements, but not to all."""
        return any(self.scale.shape[axis] != self.data.shape[axis] for axis in self.axes)

    def transposed(self, *perm: int) -> "Packed":
        """The same weights with their axes in another order."""
        zero_point = None if self.zero_point is None else self.zero_point.transpose(perm)
        return Packed(self.elem_type, self.data.transpose(perm), self.scale.transpose(perm), zero_point)

    def with_ones(self, count: int) -> "Packed":
        """The same weights with `count` more axes of size 1 at the end."""
        zero_point = None if self.zero_point is None else _with_ones(self.zero_point, count)
        return Packed(self.elem_type, _with_ones(self.data, count), _with_ones(self.scale, count), zero_point)

    def times(self, factor: float) -> "Packed":
        """The weights multiplied by `factor`."""
        return Packed(self.elem_type, self.data, self.scale * self.scale.dtype.type(factor), self.zero_point)

    def whole(self) -> NDArray[Any]:
        """Dequantize the weights; the result has the type of the scale."""
        values = self.data.astype(np.float32)
        if self.zero_point is not None:
            values -= _repeat_blocks(self.zero_point, self.data.shape)
        values *= _repeat_blocks(self.scale, self.data.shape)
        return values.astype(self.scale.dtype, copy=False)


def packed_of(node: NodeProto, tensor: Callable[[str], TensorProto | None]) -> Packed | None:
    """The quantized weights of a DequantizeLinear. `tensor` returns the tensor of a constant by name, None for any
    other value.

    None if the node is not a DequantizeLinear of constants, or if `Packed` cannot represent these: integers of more
    than 8 bits, scales of other types than fp32 and fp16, or a last block that is shorter than the others.
    """
    if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return None
    data, scale, *rest = (tensor(name) if name else None for name in node.input)
    zero_point = rest[0] if rest else None
    if data is None or scale is None or (zero_point is None and any(node.input[2:])):
        return None
    attributes = attributes_of(node)
    if data.data_type not in SMALL or not _is_in_type_of(scale, attributes):
        return None
    shape = tuple(data.dims)
    scale_shape = _scale_shape(shape, tuple(scale.dims), attributes.get("axis", 1), attributes.get("block_size", 0))
    if scale_shape is None:
        return None
    zeros = None if zero_point is None else _as_bytes(zero_point).reshape(scale_shape)
    if zeros is not None and not zeros.any():
        zeros = None
    return Packed(data.data_type, _as_bytes(data), array_of(scale).reshape(scale_shape), zeros)


def dequantized(node: NodeProto, tensor: Callable[[str], TensorProto | None]) -> NDArray[Any] | None:
    """Dequantize the weights of a DequantizeLinear whose constants `Packed` cannot represent; the result has the type
    of the scale.

    Such weights are floats of 8 or 4 bits, or blocks of which the last one is shorter than the others. None for any
    other node.
    """
    if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return None
    operands = [tensor(name) if name else None for name in node.input]
    if any(name and found is None for name, found in zip(node.input, operands, strict=True)):
        return None
    data, scale, zero = (*operands, None)[:3]
    attributes = attributes_of(node)
    if data is None or scale is None or data.data_type not in (*SMALL, *_SMALL_FLOATS):
        return None
    shape, block = tuple(data.dims), int(attributes.get("block_size", 0))
    if not _is_in_type_of(scale, attributes) or not shape or 0 in shape:
        return None
    axis = int(attributes.get("axis", 1)) % len(shape)
    scale_shape = tuple(scale.dims)
    if block:
        if scale_shape != (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :]):
            return None
    elif np.prod(scale_shape, dtype=np.int64) == 1:
        scale_shape = (1,) * len(shape)
    else:
        scale_shape = (*(1,) * axis, shape[axis], *(1,) * (len(shape) - axis - 1))
    values = array_of(data).astype(np.float32)
    if zero is not None:
        values -= repeat_blocks(array_of(zero).astype(np.float32).reshape(scale_shape), shape, block)
    values *= repeat_blocks(array_of(scale).astype(np.float32).reshape(scale_shape), shape, block)
    return values.astype(array_of(scale).dtype, copy=False)


def repeat_blocks(value: NDArray[Any], shape: Sequence[int], block: int) -> NDArray[Any]:
    """Repeat each element `block` times along the axis of blocks, up to the size in `shape`: the last block may be
    shorter.

    Axes of size 1 stay as they are, since they broadcast.
    """
    for axis, size in enumerate(shape):
        if value.shape[axis] not in (1, size):
            value = value.take(np.arange(size, dtype=np.int64) // np.int64(block), axis)
    return value


def _is_in_type_of(scale: TensorProto, attributes: Mapping[str, Any]) -> bool:
    return scale.data_type in _SCALES and attributes.get("output_dtype", 0) in (0, scale.data_type)


def _scale_shape(shape: tuple[int, ...], scale: tuple[int, ...], axis: int, block: int) -> tuple[int, ...] | None:
    """The shape of the scale, with as many axes as the data; None if the data are empty or the last block is shorter
    than the others.
    """
    if 0 in shape or not shape:
        return None
    if np.prod(scale, dtype=np.int64) == 1 and not block:
        return (1,) * len(shape)
    axis %= len(shape)
    if not block:
        return (*(1,) * axis, shape[axis], *(1,) * (len(shape) - axis - 1))
    return scale if len(scale) == len(shape) and scale[axis] * block == shape[axis] else None


def _as_bytes(tensor: TensorProto) -> NDArray[Any]:
    """The elements of a tensor as int8 or uint8, even if they have 4 bits, for which numpy has no type."""
    is_signed = tensor.data_type in (TensorProto.INT8, TensorProto.INT4)
    return array_of(tensor).astype(np.int8 if is_signed else np.uint8, copy=False)


def _with_ones(array: NDArray[Any], count: int) -> NDArray[Any]:
    return array.reshape(array.shape + (1,) * count)


def _repeat_blocks(value: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Repeat the scale or zero point of each block for all elements of the block, so that the result broadcasts to
    `shape`.

    For instance, [2, 1] becomes [2, 2, 1, 1] for 4 elements in 2 blocks. Axes of size 1 stay, since they broadcast.
    """
    for axis, size in enumerate(shape):
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def small_tensor(name: str, elem_type: int, array: NDArray[Any]) -> TensorProto:
    """Create an initializer of integers of a type in SMALL. Integers of 4 bits are stored two in a byte."""
    values = np.ascontiguousarray(array)
    if elem_type in (TensorProto.INT4, TensorProto.UINT4):
        nibbles = values.reshape(-1).astype(np.uint8) & 15
        nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
        raw = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    else:
        raw = values.astype(helper.tensor_dtype_to_np_dtype(elem_type)).tobytes()
    return TensorProto(name=name, data_type=elem_type, dims=array.shape, raw_data=raw)


def as_dequantize(packed: Packed, output: str, prefix: str) -> tuple[NodeProto, list[TensorProto]]:
    """Build the DequantizeLinear whose result is `output`, and its constants, whose names begin with `prefix`.

    `packed` must have one scale, one for each index of an axis, or one for each block along an axis.
    """
    shape, scale_shape = packed.data.shape, packed.scale.shape
    attributes: dict[str, Any] = {}
    blocked = [axis for axis, size in enumerate(scale_shape) if size != shape[axis]]
    if not packed.axes:
        scale_shape = ()
    elif packed.axes and all(scale_shape[axis] == 1 for axis in blocked) and len(packed.axes) == 1:
        (axis,) = packed.axes
        scale_shape, attributes = (scale_shape[axis],), {"axis": axis}
    else:
        axis = blocked[0] if blocked else 0
        attributes = {"axis": axis, "block_size": shape[axis] // scale_shape[axis]}
    names = [f"{prefix}/{part}" for part in ("data", "scale", "zero")]
    constants = [
        small_tensor(names[0], packed.elem_type, packed.data),
        tensor_of(names[1], packed.scale.reshape(scale_shape)),
    ]
    if packed.zero_point is not None:
        constants.append(small_tensor(names[2], packed.elem_type, packed.zero_point.reshape(scale_shape)))
    node = helper.make_node("DequantizeLinear", names[: len(constants)], [output], name=output, **attributes)
    return node, constants
