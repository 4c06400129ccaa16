"""Reductions, which keep the reduced axes with size 1, and cumulative reductions."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from onnx import helper

from triune.core.errors import UnsupportedError
from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import is_float, wide
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.subgraphs import untyped
from triune.graph.raising.types import DType

# The ONNX operators for the ways in which a scan combines elements, in the order of the dialect's enumeration of them.
_COMBINERS = ("Add", "Mul", "Min", "Max")


def _reduced(graph: Graph, op_type: str, x: Tensor, axes: list[int]) -> Tensor:
    # Without axes, return `x`: ONNX takes an empty list of axes as all axes.
    return computed_over(graph, op_type, x, axes) if axes else x


def computed_over(graph: Graph, op_type: str, x: Tensor, axes: list[int]) -> Tensor:
    """Reduce in a type that the kernel supports, and cast back to the type of `x`."""
    return graph.cast(graph.op(op_type, wide(graph, x), graph.ints(*axes), keepdims=1), x.dtype)


def _reduce(op_type: str, graph: Graph, given: Given) -> Tensor:
    return _reduced(graph, op_type, given["input"], given.axes("axes"))


def _logical(op_type: str, graph: Graph, given: Given) -> Tensor:
    """Write a logical reduction of bool: the minimum (and) or the maximum (or) of 0 and 1."""
    return _reduced(graph, op_type, given["input"], given.axes("axes"))


def _scan(graph: Graph, given: Given) -> Tensor:
    """Write a cumulative reduction: element i combines all elements up to i, or all from i on."""
    x, axis, is_reverse = given["input"], given.axis("axis"), given.flag("reverse")
    number = int(given.operation.scan_op.value)
    if not 0 <= number < len(_COMBINERS):
        raise UnsupportedError(f"the combiner {number} is not known")
    if number == 0 and x.dtype is not DType.FP16:
        place = graph.constant(axis, DType.INT64)
        return graph.cast(graph.op("CumSum", wide(graph, x), place, reverse=int(is_reverse)), x.dtype)
    return graph.cast(_scanned(graph, wide(graph, x), axis, is_reverse, _COMBINERS[number]), x.dtype)


def _scanned(graph: Graph, x: Tensor, axis: int, is_reverse: bool, op_type: str) -> Tensor:
    """Write a cumulative reduction as ONNX's Scan. It begins with 0 for Add, 1 for Mul, and for Min and Max with the
    element that comes first.
    """
    compute = graph.cast(x, DType.FP32) if x.dtype is DType.FP16 else x
    first = {"Add": 0, "Mul": 1}.get(op_type)
    if first is None:
        start = graph.op("Gather", compute, graph.constant(-1 if is_reverse else 0, DType.INT64), axis=axis)
    else:
        one = graph.op("Gather", compute, graph.constant(0, DType.INT64), axis=axis)
        start = graph.op("Expand", graph.like(first, compute), graph.op("Shape", one, dtype=DType.INT64))
    body = graph.subgraph()
    fresh = graph.root.fresh
    sofar = Tensor(fresh(f"{graph.prefix}/sofar"), compute.dtype, None)
    each = Tensor(fresh(f"{graph.prefix}/each"), compute.dtype, None)
    combined = body.op(op_type, sofar, each)
    copy = body.op("Identity", combined)
    attributes: dict[str, Any] = {
        "body": helper.make_graph(
            body.nodes, f"{graph.prefix}/body", [untyped(sofar), untyped(each)], [untyped(combined), untyped(copy)]
        ),
        "num_scan_inputs": 1,
        "scan_input_axes": [axis],
        "scan_output_axes": [axis],
        "scan_input_directions": [int(is_reverse)],
        "scan_output_directions": [int(is_reverse)],
    }
    _, result = graph.ops("Scan", [start, compute], [compute.dtype, compute.dtype], **attributes)
    return graph.cast(result, x.dtype)


def _argmax(graph: Graph, given: Given) -> Tensor:
    """Write ArgMax: the first index of the largest element."""
    return graph.op("ArgMax", wide(graph, given["input"]), dtype=DType.INT64, axis=given.axis("axis"), keepdims=1)


def _quantization_range(graph: Graph, given: Given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each index of the operand `axis`, the maximum and the minimum over all other axes; and the first and last
    number of the operand `range`. All are fp32.
    """
    x = graph.cast(given["input"], DType.FP32)
    axis = given.axis("axis")
    others = graph.ints(*(each for each in range(x.rank) if each != axis))
    high, low = (graph.op(f"Reduce{kind}", x, others, keepdims=0, noop_with_empty_axes=1) for kind in ("Max", "Min"))
    ends = graph.cast(given["range"], DType.FP32)
    first, last = (graph.op("Gather", ends, graph.constant(place, DType.INT64), axis=0) for place in (0, 1))
    return high, low, first, last


def _symmetric(graph: Graph, given: Given) -> Tensor:
    high, low, first, last = _quantization_range(graph, given)
    widest = graph.op("Max", graph.op("Abs", high), graph.op("Abs", low))
    return graph.op("Div", graph.op("Mul", widest, graph.like(2, widest)), graph.op("Sub", last, first))


def _asymmetric(graph: Graph, given: Given) -> list[Tensor]:
    high, low, first, last = _quantization_range(graph, given)
    zero = graph.like(0, high)
    high, low = graph.op("Max", high, zero), graph.op("Min", low, zero)
    scale = graph.op("Div", graph.op("Sub", high, low), graph.op("Sub", last, first))
    place = graph.op("Div", low, scale)
    if not is_float(given["range"]):
        place = graph.op("Round", place)
    zero_point = graph.op("Min", graph.op("Max", graph.op("Sub", first, place), first), last)
    return [scale, zero_point]


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "all": partial(_logical, "ReduceMin"),
        "any": partial(_logical, "ReduceMax"),
        "argmax": _argmax,
        "asymmetric_quantization_statistics": _asymmetric,
        "reduce_max": partial(_reduce, "ReduceMax"),
        "reduce_mean": partial(_reduce, "ReduceMean"),
        "reduce_min": partial(_reduce, "ReduceMin"),
        "reduce_product": partial(_reduce, "ReduceProd"),
        "reduce_sum": partial(_reduce, "ReduceSum"),
        "scan": _scan,
        "symmetric_quantization_statistics": _symmetric,
    }
)
