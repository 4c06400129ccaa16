"""Keep weights quantized in ONNX: a DequantizeLinear or Cast of integers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from triune.graph.raising.types import Array, DType

# Weights of fewer elements are stored as floats: quantized, with a scale and a node, they would hardly be smaller.
FEWEST = 1024
_ELEM_TYPES = MappingProxyType(
    {
        DType.INT8: TensorProto.INT8,
        DType.UINT8: TensorProto.UINT8,
        DType.INT16: TensorProto.INT16,
        DType.INT4: TensorProto.INT4,
        DType.UINT4: TensorProto.UINT4,
        DType.INT32: TensorProto.INT32,
        DType.FP16: TensorProto.FLOAT16,
        DType.FP32: TensorProto.FLOAT,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeights:
    """The inputs and attributes of a DequantizeLinear, or of a Cast.

    Attributes:
        inputs: the integers; for a DequantizeLinear also the scale, and the zero point unless it is 0.
        attributes: `axis` and `block_size` of a DequantizeLinear if needed; `to` of a Cast.
    """

    inputs: tuple[tuple[Array, DType], ...]
    attributes: dict[str, int]

    def protos(self, name: str, fresh: Callable[[str], str]) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes that compute the value `name` from constants, and these constants. `fresh` makes unused names."""
        names = [fresh(f"{name}/{part}") for part in ("quantized", "scale", "zero_point")][: len(self.inputs)]
        tensors = [weight_tensor(each, array, dtype) for each, (array, dtype) in zip(names, self.inputs, strict=True)]
        attributes: dict[str, Any] = dict(self.attributes)
        op_type = "Cast" if "to" in attributes else "DequantizeLinear"
        return [helper.make_node(op_type, names, [name], name=name, **attributes)], tensors


def quantized_weights(
    data: Array, data_dtype: DType, scale: Array, scale_dtype: DType, zero_point: Array | None
) -> QuantizedWeights | None:
    """Express `scale * (data - zero_point)` as DequantizeLinear or Cast; None if the weights are few or ONNX cannot
    express it.

    There may be one scale, one for each index of an axis, or one for each block along an axis. Weights of scale 1 are
    integers, whose products are exact. They become a Cast, since ONNX Runtime by default quantizes the other operand of
    a MatMul with a DequantizeLinear to 8 bits (MatMulNBits, accuracy level 4).
    """
    if data.size < FEWEST or data_dtype not in (DType.INT8, DType.UINT8, DType.INT4, DType.UINT4):
        return None
    if np.all(scale == 1):
        return _cast(data, data_dtype, scale_dtype, zero_point)
    shape = scale.shape if zero_point is None else np.broadcast_shapes(scale.shape, zero_point.shape)
    attributes: dict[str, int] = {}
    many = [axis for axis, size in enumerate(shape) if size != 1]
    blocked = [axis for axis, (have, want) in enumerate(zip(shape, data.shape, strict=True)) if have != want]
    if not many:
        form = ()
    elif len(many) == 1 and shape[many[0]] == data.shape[many[0]]:
        form, attributes = (shape[many[0]],), {"axis": many[0]}
    elif len(blocked) == 1:
        axis = blocked[0]
        form, attributes = shape, {"axis": axis, "block_size": data.shape[axis] // shape[axis]}
    else:
        return None
    inputs = [(data, data_dtype), (np.broadcast_to(scale, shape).reshape(form), scale_dtype)]
    if zero_point is not None and np.any(zero_point):
        inputs.append((np.broadcast_to(zero_point, shape).reshape(form), data_dtype))
    return QuantizedWeights(tuple(inputs), attributes)


def _cast(data: Array, dtype: DType, result: DType, zero_point: Array | None) -> QuantizedWeights | None:
    """Express data - zero_point as a Cast of INT16 integers: the difference of two 8-bit integers takes 9 bits. None if
    there is a zero point for each block.
    """
    if zero_point is not None and np.any(zero_point):
        if any(size not in (1, whole) for size, whole in zip(zero_point.shape, data.shape, strict=True)):
            return None
        data, dtype = data.astype(np.int16) - zero_point.astype(np.int16), DType.INT16
    return QuantizedWeights(((data, dtype),), {"to": _ELEM_TYPES[result]})


def weight_tensor(name: str, array: Array, dtype: DType) -> TensorProto:
    """Create an initializer. Numbers of 4 bits are stored two in a byte."""
    values = np.ascontiguousarray(array)
    if dtype in (DType.INT4, DType.UINT4):
        nibbles = values.reshape(-1).view(np.uint8) & 15
        nibbles = np.append(nibbles, np.zeros(math.prod(values.shape) % 2, np.uint8))
        values = nibbles[0::2] | nibbles[1::2] << 4
    return TensorProto(name=name, data_type=_ELEM_TYPES[dtype], dims=array.shape, raw_data=values.tobytes())
