"""Read and write slices, and split tensors."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from triune.coreai.raising.given import Given
from triune.coreai.raising.kernels import int64
from triune.coreai.raising.region import Raise
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.slices import replaced, slice_of
from triune.graph.raising.types import Array, DType

_BEFORE = np.iinfo(np.int64).min + 1


def _region(graph: Graph, given: Given) -> tuple[Tensor, Tensor, Tensor]:
    """The starts, ends and steps of a slice for ONNX.

    In both Core AI and ONNX, negative numbers count from the end, and others are clamped. For a negative step the two
    differ: the end -1 is before the first element in Core AI, and the last element in ONNX.
    """
    starts, ends = int64(graph, given["start_indices"]), int64(graph, given["end_indices"])
    steps = int64(graph, given["strides"])
    if steps.constant is not None and (steps.constant > 0).all():
        return starts, ends, steps
    if steps.constant is not None and starts.constant is not None:
        ends = _declared_ends(graph, given, starts.constant, ends, steps.constant)
    if steps.constant is not None and ends.constant is not None:
        is_before = (steps.constant < 0) & (ends.constant == -1)
        return starts, graph.constant(np.where(is_before, _BEFORE, ends.constant), DType.INT64), steps
    is_back = graph.op("Less", steps, graph.ints(0), dtype=DType.BOOL)
    is_before = graph.op("And", is_back, graph.op("Equal", ends, graph.ints(-1), dtype=DType.BOOL))
    ends = graph.op("Where", is_before, graph.ints(_BEFORE), ends, dtype=DType.INT64)
    return starts, ends, steps


def _declared_ends(graph: Graph, given: Given, starts: Array, ends: Tensor, steps: Array) -> Tensor:
    """Ends for which a slice with a negative step has as many elements as its declared result.

    Apple's library returns one element less if sizes are known than if they are not. The declared shape is the shape
    that it returns.
    """
    sizes = given["update"].shape if hasattr(given.operation, "update") else given.result().shape
    whole = given["input"].shape
    if ends.constant is None or sizes is None or whole is None:
        return ends
    known = ends.constant.copy()
    backwards: list[int] = np.flatnonzero(steps < 0).tolist()
    for axis in backwards:
        size, count = whole[axis], sizes[axis]
        if size is not None and count is not None:
            start = int(starts[axis]) + (size if starts[axis] < 0 else 0)
            end = min(max(start, 0), size - 1) + count * int(steps[axis])
            known[axis] = end if end >= 0 else -1
    return graph.constant(known, DType.INT64)


def _slice(graph: Graph, given: Given) -> Tensor:
    return slice_of(graph, given["input"], *_region(graph, given))


def _slice_update(graph: Graph, given: Given) -> Tensor:
    x, update = given["input"], given["update"]
    starts, ends, steps = _region(graph, given)
    partial = [axis for axis in range(x.rank) if not _is_whole(x, axis, starts, ends, steps)]
    return replaced(graph, x, update, starts, ends, steps, partial)


def _is_whole(x: Tensor, axis: int, starts: Tensor, ends: Tensor, steps: Tensor) -> bool:
    if starts.constant is None or ends.constant is None or steps.constant is None:
        return False
    start, end, step = (int(each.constant[axis]) for each in (starts, ends, steps) if each.constant is not None)
    size = x.size(axis)
    # The end of a dimension of unknown size is written as the largest integer.
    return start == 0 and step == 1 and (end >= np.iinfo(np.int32).max if size is None else end >= size)


def _split(graph: Graph, given: Given) -> Sequence[Tensor]:
    """Split into parts of equal size, where the last may be smaller; or into parts of the given sizes."""
    x, axis = given["input"], given.axis("dim")
    count = len(given.operation.results)
    if count == 1:
        return [x]
    sizes = given["split_size_or_sections"]
    dtypes = [x.dtype] * count
    if sizes.rank == 0:
        whole, part = x.size(axis), given.integer("split_size_or_sections")
        if whole is None:
            return _parts(graph, x, axis, part, count)
        known = [min(part, whole - place * part) for place in range(count)]
        return graph.ops("Split", [x, graph.ints(*known)], dtypes, axis=axis)
    return graph.ops("Split", [x, int64(graph, sizes)], dtypes, axis=axis)


def _parts(graph: Graph, x: Tensor, axis: int, part: int, count: int) -> list[Tensor]:
    return [
        graph.op("Slice", x, graph.ints(place * part), graph.ints((place + 1) * part), graph.ints(axis))
        for place in range(count)
    ]


TABLE: Mapping[str, Raise] = MappingProxyType({"slice": _slice, "slice_update": _slice_update, "split": _split})
