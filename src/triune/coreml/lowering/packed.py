"""Quantized weights, kept in Core ML's packed forms or dequantized to constants."""

from typing import Any

import numpy as np
from onnx import TensorProto

from triune.coreml.lowering.context import Context
from triune.coreml.lowering.mb import Var, mb, types
from triune.coreml.lowering.options import Target
from triune.graph.packed import Packed, packed_of

_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def packed_input(c: Context, index: int) -> Packed | None:
    """The quantized weights of an input; None if the program does not hold that input quantized."""
    return c.scope.packed(c.node.input[index]) if c.has(index) else None


def dequantize(c: Context) -> bool:
    """Write a DequantizeLinear of constants, which keeps the weights quantized if the target can.

    Returns:
        False if the operands are not constants: nothing is written then.
    """
    packed = packed_of(c.node, c.scope.tensor)
    if packed is None:
        return False
    reason = _reason(packed, c.target)
    if reason is None:
        c.scope.pack(c.node.output[0], packed)
        c.give(unpacked(c, packed))
    else:
        c.note(f"{packed.data.size} quantized weights are saved dequantized: {reason}")
        c.give(mb.const(val=packed.whole()))
    return True


def unpacked(c: Context, packed: Packed) -> Var:
    """Write the operation that dequantizes constant weights, when the program is loaded or while it runs."""
    scale = packed.scale
    data, zero_point = _small(packed.elem_type, packed.data), packed.zero_point
    if c.target.value >= Target.IOS18.value:
        offset = {} if zero_point is None else {"offset": _small(packed.elem_type, zero_point)}
        return mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **offset)
    axis = next(iter(packed.axes), 0)
    form = -1 if packed.axes else ()
    zero = np.zeros((), data.dtype) if zero_point is None else zero_point.reshape(form)
    return mb.constexpr_affine_dequantize(
        quantized_data=data, zero_point=zero[()], scale=scale.reshape(form)[()], axis=np.int32(axis)
    )


def _small(elem_type: int, array: Any) -> Any:
    values = np.ascontiguousarray(array)
    if elem_type not in _FOUR_BITS:
        return values
    return values.astype(types.np_int4_dtype if elem_type == TensorProto.INT4 else types.np_uint4_dtype)


def _reason(packed: Packed, target: Target) -> str | None:
    """Why the target cannot hold the quantized weights; None if it can."""
    if target.value < Target.IOS16.value:
        return f"{target.label} has no quantized weights; give --target iOS16 or later"
    if target.value < Target.IOS18.value and (packed.is_blocked or packed.elem_type in _FOUR_BITS):
        return f"{target.label} has neither weights of 4 bits nor scales for blocks; give --target iOS18"
    return None
