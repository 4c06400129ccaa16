"""QuantizeLinear and DequantizeLinear."""

from collections.abc import Mapping

from onnx import TensorProto, helper

from triune.graph.axes import positive
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.quantized import quantized_type
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx

_LIMITS: Mapping[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}


def _spread(c: Context, value: Value, x: Value) -> Value:
    """Reshape a scale or zero point so that it broadcasts to `x`. There is one for the whole tensor, one for each index
    of an axis, or one for each block.
    """
    if value.size == 1 and not c.attributes.get("block_size", 0):
        return value.reshape(())
    axis, block = positive(int(c.attributes.get("axis", 1)), x.ndim), int(c.attributes.get("block_size", 0))
    if not block:
        return value.reshape([-1 if each == axis else 1 for each in range(x.ndim)])
    return mx.repeat(value, block, axis)[(*[slice(None)] * axis, slice(x.shape[axis]))]


def _quantize(c: Context) -> None:
    x, scale = c.input(0), c.input(1)
    elem_type = quantized_type(c)
    if elem_type not in _LIMITS:
        raise Refusal(f"a quantization to {helper.tensor_dtype_to_string(elem_type)}, which MLX does not have")
    low, high = _LIMITS[elem_type]
    found = mx.round(x.astype(mx.float32) / _spread(c, scale.astype(mx.float32), x))
    if c.has(2):
        found = found + _spread(c, c.input(2).astype(mx.float32), x)
    c.give(mx.clip(found, low, high).astype(mx.int32).astype(builder_of(c).kind_of(elem_type)))


def _dequantize(c: Context) -> None:
    x, scale = c.input(0), c.input(1)
    kind = builder_of(c).kind_of(int(c.attributes.get("output_dtype", 0))) if c.attributes.get("output_dtype") else None
    # Integers of more than 24 bits are subtracted as integers: fp32 would round them.
    found = x.astype(mx.int32)
    if c.has(2):
        found = found - _spread(c, c.input(2).astype(mx.int32), x)
    found = found.astype(mx.float32) * _spread(c, scale.astype(mx.float32), x)
    c.give(found.astype(kind or scale.dtype))


TABLE: Mapping[str, Lowering] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
