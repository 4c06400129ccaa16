"""Lowering of QuantizeLinear and DequantizeLinear. Integers of 8 and 16 bits become int32, limited to the range of the
original type.
"""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, helper

from triune.coreml.lowering.context import Context, Lowering, Refusal, dtype_name
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.packed import dequantize
from triune.graph.axes import positive
from triune.graph.conversion.lowering.elementwise import cast_type
from triune.graph.conversion.quantized import quantized_type

_PRECISIONS: Mapping[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
_SMALL = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)


def _spread(c: Context, value: Var, x: Var) -> Var:
    """Reshape a scale or zero point so that it broadcasts to `x`. It has one number for the whole of `x`, one for each
    index of the attribute `axis`, or one for each block.
    """
    if value.rank == 0 or (value.rank == 1 and value.shape[0] == 1):
        return value
    axis = positive(int(c.attributes.get("axis", 1)), x.rank)
    block = int(c.attributes.get("block_size", 0))
    if not block:
        return mb.reshape(x=value, shape=[-1 if each == axis else 1 for each in range(x.rank)])
    if not is_fixed(x.shape[axis]):
        raise Refusal("a blocked dimension that is not fixed; give its size with --shape")
    places = np.repeat(np.arange(int(value.shape[axis]), dtype=np.int32), block)[: int(x.shape[axis])]
    return mb.gather(x=value, indices=places, axis=axis)


def _quantize(c: Context) -> None:
    """Lower QuantizeLinear: saturate(round(x / scale) + zero_point)."""
    x, scale = c.input(0), c.input(1)
    elem_type = quantized_type(c)
    if elem_type not in _SMALL:
        kind = helper.tensor_dtype_to_string(elem_type)
        raise Refusal(f"quantization to {kind}, which Core ML lacks; use INT8 or UINT8")
    precision = int(c.attributes.get("precision", 0))
    kind = _PRECISIONS.get(precision, dtype_name(scale))
    limits = np.iinfo(helper.tensor_dtype_to_np_dtype(elem_type).name)
    ratio = mb.real_div(x=_as(x, kind), y=_as(_spread(c, scale, x), kind))
    levels = mb.round(x=_as(ratio, "fp32"))
    if c.has(2):
        levels = mb.add(x=levels, y=mb.cast(x=_spread(c, c.input(2), x), dtype="fp32"))
    levels = mb.clip(x=levels, alpha=np.float32(limits.min), beta=np.float32(limits.max))
    # Limit the levels again after the cast: `clip` leaves NaN as it is, and the cast turns NaN into an arbitrary int32,
    # which on x86 is the lowest. So NaN becomes the lowest level there, as in ONNX Runtime.
    c.give(mb.maximum(x=mb.cast(x=levels, dtype="int32"), y=np.int32(limits.min)))


def _as(x: Var, kind: str) -> Var:
    return x if dtype_name(x) == kind else mb.cast(x=x, dtype=kind)


def _dequantize(c: Context) -> None:
    """Lower DequantizeLinear: weights that are constants stay quantized, others are (x - zero_point) * scale."""
    if dequantize(c):
        return
    x, scale = c.input(0), c.input(1)
    if c.has(2):
        x = mb.sub(x=x, y=_spread(c, c.input(2), x))
    result = mb.mul(x=mb.cast(x=x, dtype=dtype_name(scale)), y=_spread(c, scale, x))
    wanted = int(c.attributes.get("output_dtype", 0))
    c.give(c.builder.cast(result, cast_type(wanted)) if wanted else result)


TABLE: dict[str, Lowering] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
