"""ONNX operators for types that runtimes have no kernels for: operands are cast to another type, and the result is cast
back.
"""

from types import MappingProxyType
from typing import Any

from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.types import DType

FLOATS = (DType.FP16, DType.FP32, DType.FP64, DType.BF16)
# For each type without kernels, the type in which to compute. If integers overflow in the wider type, the result is
# still right: it wraps around when it is cast back.
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
    """Whether the tensor's element type is a float type."""
    return tensor.dtype in FLOATS


def wide(graph: Graph, tensor: Tensor) -> Tensor:
    """Cast `tensor` to a type that all kernels support: fp16, fp32, int32 or int64."""
    return graph.cast(tensor, _WIDER.get(tensor.dtype, tensor.dtype))


def computed(graph: Graph, op_type: str, *inputs: Tensor, dtype: DType | None = None, **attributes: Any) -> Tensor:
    """Write an operator on inputs of one type, that of the first one. The result has that type, or `dtype`."""
    first = inputs[0]
    widened = [wide(graph, each) for each in inputs]
    if dtype is not None:
        return graph.op(op_type, *widened, dtype=dtype, **attributes)
    return graph.cast(graph.op(op_type, *widened, **attributes), first.dtype)


def where(graph: Graph, condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Write ONNX's Where, also for bool and small integer types."""
    result = graph.op("Where", condition, wide(graph, yes), wide(graph, no), dtype=wide(graph, yes).dtype)
    return graph.cast(result, yes.dtype)


def int64(graph: Graph, tensor: Tensor) -> Tensor:
    """Cast indices, sizes and shapes to INT64, as ONNX requires."""
    return graph.cast(tensor, DType.INT64)
