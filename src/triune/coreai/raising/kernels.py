"""ONNX's operators on the element types that runtimes have kernels for, whatever type Core AI computes in."""

from types import MappingProxyType
from typing import Any

from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

FLOATS = (DType.FP16, DType.FP32, DType.FP64, DType.BF16)
# Whole numbers that wrap do so again when they are cast back.
_WIDER = MappingProxyType(
    {
        DType.BOOL: DType.INT32,
        DType.INT8: DType.INT32,
        DType.INT16: DType.INT32,
        DType.UINT8: DType.INT32,
        DType.UINT16: DType.INT32,
        DType.UINT32: DType.INT64,
        DType.UINT64: DType.INT64,
    }
)


def is_float(tensor: Tensor) -> bool:
    """Is it of floats?"""
    return tensor.dtype in FLOATS


def wide(graph: Graph, tensor: Tensor) -> Tensor:
    """`tensor` in a type that every kernel has: fp16, fp32, int32, int64."""
    return graph.cast(tensor, _WIDER.get(tensor.dtype, tensor.dtype))


def computed(graph: Graph, op_type: str, *inputs: Tensor, dtype: DType | None = None, **attributes: Any) -> Tensor:
    """The operator on inputs that all have the type of the first one; the result is of that type, or of `dtype`."""
    first = inputs[0]
    widened = [wide(graph, each) for each in inputs]
    if dtype is not None:
        return graph.op(op_type, *widened, dtype=dtype, **attributes)
    return graph.cast(graph.op(op_type, *widened, **attributes), first.dtype)


def where(graph: Graph, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Element by element; truth values and small numbers too."""
    result = graph.op("Where", condition, wide(graph, yes), wide(graph, no), dtype=wide(graph, yes).dtype)
    return graph.cast(result, yes.dtype)


def int64(graph: Graph, tensor: Tensor) -> Tensor:
    """Indices, sizes and shapes as ONNX takes them."""
    return graph.cast(tensor, DType.INT64)
