"""Slices of tensors, read and written."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.mil import Array, DType
from triune.coreml.raising.block import Raise
from triune.coreml.raising.given import Given
from triune.graph.raising.graph import Graph, Tensor
from triune.graph.raising.slices import replaced, slice_of

_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class _Region:
    """The operands of ONNX's Slice for all dimensions.

    Attributes:
        starts: the first index of each dimension, INT64.
        ends: the index after the last one, INT64.
        steps: the step along each dimension.
        whole: the dimensions that are certainly selected entirely.
        squeezed: the dimensions with one selected element, which are then removed.
    """

    starts: Tensor
    ends: Tensor
    steps: Array
    whole: frozenset[int]
    squeezed: tuple[int, ...]


def _mask(given: Given, name: str, rank: int) -> Array:
    mask = given.maybe_array(name)
    if mask is None:
        return np.zeros(rank, np.bool_)
    if mask.shape != (rank,):
        raise InvalidArgumentError(f"'{name}' of shape {list(mask.shape)} for {rank} dimensions")
    return mask.astype(np.bool_)


def _region(graph: Graph, given: Given) -> _Region:
    """The region `begin:end:stride` of `x`. Where a mask is true, the region begins or ends where `x` does."""
    x, rank = given["x"], given["x"].rank
    squeezed = _mask(given, "squeeze_mask", rank)
    no_begin = _mask(given, "begin_mask", rank) & ~squeezed
    no_end = _mask(given, "end_mask", rank)
    stride = given.maybe_array("stride")
    steps = np.ones(rank, np.int64) if stride is None else stride.reshape(-1).astype(np.int64)
    if steps.shape != (rank,) or not steps.all():
        raise InvalidArgumentError(f"'stride' is {steps.tolist()} for {rank} dimensions")
    steps = np.where(squeezed, 1, steps)
    begin, end = graph.cast(given["begin"], DType.INT64), graph.cast(given["end"], DType.INT64)
    first, last = np.where(steps > 0, 0, _LARGEST), np.where(steps > 0, _LARGEST, -_LARGEST)
    starts = _choose(graph, no_begin, graph.constant(first, DType.INT64), begin)
    ends = _choose(graph, no_end, graph.constant(last, DType.INT64), end)
    # One element at `begin` is the slice from `begin` to `begin + 1`. If `begin` is -1, that end would be 0, so the end
    # of the dimension is used instead.
    if squeezed.any():
        after = _after(graph, starts)
        ends = _choose(graph, squeezed, after, ends)
    whole = {
        axis
        for axis in range(rank)
        if steps[axis] == 1
        and (no_begin[axis] or _is(starts, axis, 0))
        and (no_end[axis] or _is(ends, axis, x.size(axis)))
        and not squeezed[axis]
    }
    return _Region(starts, ends, steps, frozenset(whole), tuple(int(axis) for axis in np.flatnonzero(squeezed)))


def _is(vector: Tensor, axis: int, value: int | None) -> bool:
    return vector.constant is not None and value is not None and int(vector.constant.reshape(-1)[axis]) == value


def _after(graph: Graph, starts: Tensor) -> Tensor:
    if starts.constant is not None:
        return graph.constant(np.where(starts.constant == -1, _LARGEST, starts.constant + 1), DType.INT64)
    is_last = graph.op("Equal", starts, graph.ints(-1), dtype=DType.BOOL)
    return graph.op("Where", is_last, graph.ints(_LARGEST), graph.op("Add", starts, graph.ints(1)), dtype=DType.INT64)


def _choose(graph: Graph, mask: Array, yes: Tensor, no: Tensor) -> Tensor:
    """Choose `yes` or `no` element by element, by a constant mask."""
    if not mask.any():
        return no
    if mask.all():
        return yes
    if yes.constant is not None and no.constant is not None:
        return graph.constant(np.where(mask, yes.constant, no.constant), DType.INT64)
    return graph.op("Where", graph.constant(mask, DType.BOOL), yes, no, dtype=DType.INT64)


def _slice(graph: Graph, x: Tensor, region: _Region) -> Tensor:
    return slice_of(graph, x, region.starts, region.ends, graph.constant(region.steps, DType.INT64))


def _slice_by_index(graph: Graph, given: Given) -> Tensor:
    region = _region(graph, given)
    return graph.squeeze(_slice(graph, given["x"], region), *region.squeezed)


def _slice_by_size(graph: Graph, given: Given) -> Tensor:
    """Write a slice of `size` elements from `begin` on, in each dimension; size -1 takes all that follow."""
    x = given["x"]
    begin, size = graph.cast(given["begin"], DType.INT64), graph.cast(given["size"], DType.INT64)
    if begin.constant is not None and size.constant is not None and not (begin.constant < 0).any():
        ends = np.where(size.constant == -1, _LARGEST, begin.constant + size.constant)
        return graph.op("Slice", x, begin, graph.constant(ends, DType.INT64), graph.ints(*range(x.rank)))
    is_negative = graph.op("Less", begin, graph.ints(0), dtype=DType.BOOL)
    start = graph.op("Where", is_negative, graph.op("Add", begin, graph.shape_of(x)), begin, dtype=DType.INT64)
    is_rest = graph.op("Equal", size, graph.ints(-1), dtype=DType.BOOL)
    ends = graph.op("Where", is_rest, graph.ints(_LARGEST), graph.op("Add", start, size), dtype=DType.INT64)
    return graph.op("Slice", x, start, ends, graph.ints(*range(x.rank)))


def _slice_update(graph: Graph, given: Given) -> Tensor:
    """Replace a slice of `x` by `update`."""
    x, region = given["x"], _region(graph, given)
    update = graph.unsqueeze(given["update"], *region.squeezed)
    partial = [axis for axis in range(x.rank) if axis not in region.whole]
    if not partial:
        return update
    steps = graph.constant(region.steps, DType.INT64)
    return replaced(graph, x, update, region.starts, region.ends, steps, partial)


TABLE: Mapping[str, Raise] = MappingProxyType(
    {"slice_by_index": _slice_by_index, "slice_by_size": _slice_by_size, "slice_update": _slice_update}
)
