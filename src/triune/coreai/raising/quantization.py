"""Quantize and dequantize at run time, with scalars, or with vectors along an axis."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from triune.coreai.raising.elementwise_unary import rounded_to
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import FLOATS
from triune.coreai.raising.region import Raise
from triune.coreai.raising.types import element_type
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

_NATIVE = (DType.INT8, DType.UINT8)


def _axis(given: Given, x: Tensor) -> int | None:
    """The axis of `x` along which the scale and the offsets are vectors; None if they are scalars."""
    if given["scale"].rank == 0:
        return None
    return existing_axis(given.integer("axis"), x.rank)


def _along(graph: Graph, parameter: Tensor, axis: int | None, rank: int) -> Tensor:
    """Reshape a vector so that it broadcasts along an axis of a tensor."""
    return parameter if axis is None else graph.reshape(parameter, *(-1 if each == axis else 1 for each in range(rank)))


def _is_zero(parameter: Tensor) -> bool:
    return parameter.constant is not None and not parameter.constant.any()


def _is_one(parameter: Tensor) -> bool:
    return parameter.constant is not None and bool((parameter.constant == 1).all())


def _attributes(axis: int | None) -> dict[str, Any]:
    return {} if axis is None else {"axis": axis}


def _quantize(graph: Graph, given: Given) -> Tensor:
    """Write clip(round((input - offset2) / scale) + offset1). Numbers halfway between two integers are rounded to the
    even one.
    """
    x, scale, offset1, offset2 = (given[name] for name in ("input", "scale", "offset1", "offset2"))
    axis, element = _axis(given, x), given.element()
    is_native = element.bits == 8 and element.carried in _NATIVE and x.dtype in (DType.FP32, DType.FP16)
    if is_native and _is_zero(offset2) and scale.dtype is x.dtype:
        # Write QuantizeLinear, which runtimes fuse with its neighbours, from fp32: ONNX Runtime (1.32) fuses a Concat
        # of values quantized from fp16 to QLinearConcat, which it then refuses.
        x, scale = (graph.cast(each, DType.FP32) for each in (x, scale))
        return graph.op("QuantizeLinear", x, scale, offset1, dtype=element.carried, **_attributes(axis))
    scale, offset1, offset2 = (_along(graph, each, axis, x.rank) for each in (scale, offset1, offset2))
    shifted = graph.op("Sub", *(graph.cast(each, DType.FP32) for each in (x, offset2)))
    scaled = graph.op("Div", shifted, graph.cast(scale, DType.FP32))
    if element.storage.kind not in "iu":
        return rounded_to(graph, graph.op("Add", scaled, graph.cast(offset1, DType.FP32)), element.storage)
    moved = graph.op("Add", graph.op("Round", scaled), graph.cast(offset1, DType.FP32))
    low, high = (graph.like(end, moved) for end in (element.lowest, element.highest))
    return graph.op("Clip", moved, low, high)


def _dequantize(graph: Graph, given: Given) -> Tensor:
    """Write (input - offset1) * scale + offset2.

    Weights of scale 1 are integers, whose products are exact, so they are not written as DequantizeLinear: with its
    default options ONNX Runtime quantizes the other operand of a MatMul with a DequantizeLinear to 8 bits.
    """
    x, scale, offset1, offset2 = (given[name] for name in ("input", "scale", "offset1", "offset2"))
    axis, dtype = _axis(given, x), given.dtype
    if x.constant is not None and _is_one(scale) and _is_zero(offset2):
        whole = graph.cast(x, DType.FP32)
        if not _is_zero(offset1):
            whole = graph.op("Sub", whole, graph.cast(_along(graph, offset1, axis, x.rank), DType.FP32))
        return graph.cast(whole, dtype)
    if is_native(given) and _is_zero(offset2) and dtype in FLOATS:
        zero_point = None if _is_zero(offset1) else offset1
        scale = graph.cast(scale, dtype)
        return graph.op("DequantizeLinear", x, scale, zero_point, dtype=dtype, **_attributes(axis))
    parameters = [_along(graph, each, axis, x.rank) for each in (scale, offset1, offset2)]
    return shifted_scaled(graph, x, parameters[0], parameters[1], parameters[2], dtype)


def is_native(given: Given, name: str = "input") -> bool:
    """Whether an operand has 8-bit integers, which DequantizeLinear accepts."""
    element = element_type(getattr(given.operation, name).type)
    return element.bits == 8 and element.carried in _NATIVE


def shifted_scaled(graph: Graph, x: Tensor, scale: Tensor, offset1: Tensor, offset2: Tensor, dtype: DType) -> Tensor:
    """Write `scale * (x - offset1) + offset2`, for parameters that broadcast to `x`."""
    shifted = graph.cast(x, DType.FP32)
    if not _is_zero(offset1):
        shifted = graph.op("Sub", shifted, graph.cast(offset1, DType.FP32))
    result = graph.op("Mul", shifted, graph.cast(scale, DType.FP32))
    if not _is_zero(offset2):
        result = graph.op("Add", result, graph.cast(offset2, DType.FP32))
    return graph.cast(result, dtype)


TABLE: Mapping[str, Raise] = MappingProxyType({"dequantize": _dequantize, "quantize": _quantize})
