"""Weights packed into small integers: a DequantizeLinear of constants.

It is a core operator and never folded, so that a conversion can keep the weights small if its runtime can compute with
them, and unpack them (`Packed.whole`) if it cannot.
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
"""The element types of packed weights."""

_SMALL_FLOATS = (
    *(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ),
    TensorProto.FLOAT4E2M1,
)
"""Float types of 8 and 4 bits. Weights of these are unpacked, since no runtime keeps them."""

_SCALES = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Packed weights: scale * (data - zero_point), with one scale and zero point for each block of the data.

    Attributes:
        elem_type: the element type of the data and the zero points, one of SMALL.
        data: the integers, an array of int8 or uint8 also where the element type has 4 bits.
        scale: fp32 or fp16, of the same rank as the data. Each of its sizes divides the data's; the ratios are the
            block's shape.
        zero_point: integers of the data's type and the scale's shape; None where all are 0.
    """

    elem_type: int
    data: NDArray[Any]
    scale: NDArray[Any]
    zero_point: NDArray[Any] | None

    @property
    def axes(self) -> Sequence[int]:
        """The axes along which the scale changes."""
        return [axis for axis, size in enumerate(self.scale.shape) if size > 1]

    @property
    def is_blocked(self) -> bool:
        """Whether a scale belongs to several, but not all, elements along an axis."""
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
        """The unpacked weights, in the scale's type."""
        values = self.data.astype(np.float32)
        if self.zero_point is not None:
            values -= _spread(self.zero_point, self.data.shape)
        values *= _spread(self.scale, self.data.shape)
        return values.astype(self.scale.dtype, copy=False)


def packed_of(node: NodeProto, tensor: Callable[[str], TensorProto | None]) -> Packed | None:
    """The weights that `node` unpacks. `tensor` returns the tensor of a constant by name, None for any other value.

    None where the node is not a DequantizeLinear of constants, or `Packed` cannot hold them: integers of more bits,
    scales of other types, a last block that is cut short.
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
    form = _form(shape, tuple(scale.dims), attributes.get("axis", 1), attributes.get("block_size", 0))
    if form is None:
        return None
    zeros = None if zero_point is None else _as_bytes(zero_point).reshape(form)
    if zeros is not None and not zeros.any():
        zeros = None
    return Packed(data.data_type, _as_bytes(data), array_of(scale).reshape(form), zeros)


def made_whole(node: NodeProto, tensor: Callable[[str], TensorProto | None]) -> NDArray[Any] | None:
    """The unpacked weights of a DequantizeLinear whose constants `Packed` cannot hold, in the scale's type.

    Such are floats of 8 or 4 bits, and blocks of which the last is cut short. None for any other node.
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
    form = tuple(scale.dims)
    if block:
        if form != (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :]):
            return None
    elif np.prod(form, dtype=np.int64) == 1:
        form = (1,) * len(shape)
    else:
        form = (*(1,) * axis, shape[axis], *(1,) * (len(shape) - axis - 1))
    values = array_of(data).astype(np.float32)
    if zero is not None:
        values -= spread_blocks(array_of(zero).astype(np.float32).reshape(form), shape, block)
    values *= spread_blocks(array_of(scale).astype(np.float32).reshape(form), shape, block)
    return values.astype(array_of(scale).dtype, copy=False)


def spread_blocks(value: NDArray[Any], shape: Sequence[int], block: int) -> NDArray[Any]:
    """Repeat each element `block` times along the blocked axis, up to its size in `shape`: the last block may be cut
    short.

    Axes of size 1 stay as they are, since they broadcast.
    """
    for axis, size in enumerate(shape):
        if value.shape[axis] not in (1, size):
            value = value.take(np.arange(size, dtype=np.int64) // np.int64(block), axis)
    return value


def _is_in_type_of(scale: TensorProto, attributes: Mapping[str, Any]) -> bool:
    return scale.data_type in _SCALES and attributes.get("output_dtype", 0) in (0, scale.data_type)


def _form(shape: tuple[int, ...], scale: tuple[int, ...], axis: int, block: int) -> tuple[int, ...] | None:
    """The shape of the scale, extended to the rank of the data; None where the last block is cut short, or without
    data.
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
    """The elements of a tensor as int8 or uint8, also those of 4 bits, which numpy does not have."""
    is_signed = tensor.data_type in (TensorProto.INT8, TensorProto.INT4)
    return array_of(tensor).astype(np.int8 if is_signed else np.uint8, copy=False)


def _with_ones(array: NDArray[Any], count: int) -> NDArray[Any]:
    return array.reshape(array.shape + (1,) * count)


def _spread(value: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Repeat each element along each axis as often as its block is long, so that the result broadcasts to `shape`."""
    for axis, size in enumerate(shape):
        # Dimensions of 1 broadcast.
        if value.shape[axis] not in (1, size):
            value = np.repeat(value, size // value.shape[axis], axis)
    return value


def small_tensor(name: str, elem_type: int, array: NDArray[Any]) -> TensorProto:
    """An initializer of integers whose element type is one of SMALL; two elements of 4 bits share a byte."""
    values = np.ascontiguousarray(array)
    if elem_type in (TensorProto.INT4, TensorProto.UINT4):
        nibbles = values.reshape(-1).astype(np.uint8) & 15
        nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
        raw = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    else:
        raw = values.astype(helper.tensor_dtype_to_np_dtype(elem_type)).tobytes()
    return TensorProto(name=name, data_type=elem_type, dims=array.shape, raw_data=raw)


def as_dequantize(packed: Packed, output: str, prefix: str) -> tuple[NodeProto, list[TensorProto]]:
    """Build the DequantizeLinear whose result is `output`, and its constants, whose names start with `prefix`.

    `packed` has one scale, one for each index along an axis, or one for each block along an axis.
    """
    shape, form = packed.data.shape, packed.scale.shape
    attributes: dict[str, Any] = {}
    blocked = [axis for axis, size in enumerate(form) if size != shape[axis]]
    if not packed.axes:
        form = ()
    elif packed.axes and all(form[axis] == 1 for axis in blocked) and len(packed.axes) == 1:
        (axis,) = packed.axes
        form, attributes = (form[axis],), {"axis": axis}
    else:
        axis = blocked[0] if blocked else 0
        attributes = {"axis": axis, "block_size": shape[axis] // form[axis]}
    names = [f"{prefix}/{part}" for part in ("data", "scale", "zero")]
    constants = [
        small_tensor(names[0], packed.elem_type, packed.data),
        tensor_of(names[1], packed.scale.reshape(form)),
    ]
    if packed.zero_point is not None:
        constants.append(small_tensor(names[2], packed.elem_type, packed.zero_point.reshape(form)))
    node = helper.make_node("DequantizeLinear", names[: len(constants)], [output], name=output, **attributes)
    return node, constants
