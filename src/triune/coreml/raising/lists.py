"""Lists of tensors. A list becomes one ONNX tensor, its stacked elements. Elements that are not written yet are zeros.
As long as a size of the elements is not known, it is 1; the first element that is written sets it. Elements of fp16 are
kept in fp32, which has all of their numbers: ONNX Runtime (1.32) mixes up the types of an Expand and a Concat of fp16
in the body of a Loop, and then refuses the graph.
"""

from collections.abc import Mapping
from types import MappingProxyType

from triune.coreml.mil import DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.elementwise_unary import dtype_called
from triune.coreml.raising.given import Given
from triune.coreml.raising.tensor_operation import filled
from triune.graph.raising.graph import Graph, Tensor


def _make_list(graph: Graph, given: Given) -> Tensor:
    length = graph.reshape(graph.cast(_argument(graph, given, "init_length"), DType.INT64), 1)
    sizes = [length]
    for size in given.many("elem_shape"):
        is_known = size.constant is not None and size.dtype is not DType.STRING
        sizes.append(graph.reshape(graph.cast(size, DType.INT64), 1) if is_known else graph.ints(1))
    dtype = dtype_called(given.text("dtype"))
    return filled(graph, graph.concat(*sizes), 0, DType.FP32 if dtype is DType.FP16 else dtype)


def _argument(graph: Graph, given: Given, name: str) -> Tensor:
    tensor = given.maybe(name)
    return graph.constant(given.array(name), DType.INT32) if tensor is None else tensor


def _length(graph: Graph, given: Given) -> Tensor:
    size = graph.op("Shape", given["ls"], dtype=DType.INT64, start=0, end=1)
    return graph.scalar(graph.cast(size, DType.INT32))


def _read(graph: Graph, given: Given) -> Tensor:
    index = graph.scalar(graph.cast(given["index"], DType.INT64))
    return graph.op("Gather", given["ls"], index, axis=0)


def _gather(graph: Graph, given: Given) -> Tensor:
    return graph.op("Gather", given["ls"], graph.cast(given["indices"], DType.INT64), axis=0)


def _write(graph: Graph, given: Given) -> Tensor:
    indices = graph.reshape(graph.cast(given["index"], DType.INT64), 1)
    return _put(graph, given["ls"], indices, graph.unsqueeze(given["value"], 0))


def _scatter(graph: Graph, given: Given) -> Tensor:
    return _put(graph, given["ls"], graph.cast(given["indices"], DType.INT64), given["value"])


def _put(graph: Graph, elements: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """Write `values` at `indices`, and make the list longer where an index is beyond its end."""
    values = graph.cast(values, elements.dtype)
    length = graph.op("Shape", elements, dtype=DType.INT64, start=0, end=1)
    needed = graph.op("Add", graph.op("ReduceMax", indices, graph.ints(0), keepdims=1), graph.ints(1))
    # Expand the elements to the shape of `values`: sizes that were unknown are 1 so far.
    one_value = graph.op("Shape", values, dtype=DType.INT64, start=1)
    shaped = graph.op("Expand", elements, graph.concat(length, one_value))
    missing = graph.op("Max", graph.op("Sub", needed, length), graph.ints(0))
    more = filled(graph, graph.concat(missing, one_value), 0, elements.dtype)
    grown = graph.op("Concat", shaped, more, axis=0)
    return graph.op("ScatterND", grown, graph.unsqueeze(indices, 1), values)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {
        "list_gather": _gather,
        "list_length": _length,
        "list_read": _read,
        "list_scatter": _scatter,
        "list_write": _write,
        "make_list": _make_list,
    }
)
