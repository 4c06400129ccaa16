"""Lowering of Gather and Scatter operators."""

import numpy as np

from triune.coreml.lowering.binary import negative_from_end
from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    has_static_shape,
    is_bool,
    through_int,
)
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.options import Target
from triune.graph.axes import positive
from triune.graph.conversion.lowering.indices import scatter_mode, tuple_length


def _gather(c: Context) -> None:
    x, indices = c.input(0), c.input(1)
    axis = positive(int(c.attributes.get("axis", 0)), x.rank)
    if indices.val is not None and np.min(indices.val) < 0:
        indices = negative_from_end(indices, sizes_of(x)[axis])
    if indices.rank == 0 and x.rank == 1 and x.sym_val is not None:
        # `x` is a vector whose elements coremltools knows as symbols. It then fails on a scalar index, so gather by a
        # vector of one index.
        one = mb.expand_dims(x=indices, axes=[0])
        c.give(through_int(x, lambda each: mb.squeeze(x=mb.gather(x=each, indices=one, axis=axis), axes=[0])))
        return
    # If the indices are computed at run time, a pass of coremltools adds the size to negative indices, for targets
    # whose gather does not accept these.
    c.give(through_int(x, lambda each: mb.gather(x=each, indices=indices, axis=axis)))


def _gather_elements(c: Context) -> None:
    x, indices = c.input(0), c.input(1)
    axis = positive(int(c.attributes.get("axis", 0)), x.rank)
    indices = negative_from_end(indices, sizes_of(x)[axis])
    x = _cut_to(x, indices, axis)
    c.give(through_int(x, lambda each: mb.gather_along_axis(x=each, indices=indices, axis=axis)))


def _cut_to(x: Var, indices: Var, axis: int) -> Var:
    """Slice `x` to the size of `indices` in each dimension except `axis`, as MIL's gather_along_axis requires."""
    others = [place for place in range(x.rank) if place != axis]
    ends = [sizes_of(x)[axis] if place == axis else size for place, size in enumerate(sizes_of(indices))]
    if all(x.shape[place] == indices.shape[place] for place in others):
        return x
    if all(is_fixed(x.shape[place]) and is_fixed(indices.shape[place]) for place in others):
        masks = [place == axis for place in range(x.rank)]
        known = [0 if place == axis else int(indices.shape[place]) for place in range(x.rank)]
        return mb.slice_by_index(x=x, begin=[0] * x.rank, end=known, end_mask=masks)
    cut = mb.slice_by_index(x=x, begin=[0] * x.rank, end=as_vector(ends))
    # Declare the shape of the indices: if sizes are free, coremltools requires the same symbols in both shapes.
    return mb.reshape(x=cut, shape=as_vector(ends))


def _gather_nd(c: Context) -> None:
    x, indices = c.input(0), c.input(1)
    batch_dims = int(c.attributes.get("batch_dims", 0))
    if batch_dims and c.target.value < Target.IOS16.value:
        raise Refusal("GatherND with batch dimensions; give --target iOS16 or later")
    indices = _from_front(c, indices, x, batch_dims)
    more = {"batch_dims": batch_dims} if batch_dims else {}
    c.give(through_int(x, lambda each: mb.gather_nd(x=each, indices=indices, **more)))


def _from_front(c: Context, indices: Var, x: Var, batch_dims: int) -> Var:
    """Add the sizes of dimensions of `x` to the negative indices, which count from the end.

    `indices` are tuples (i, j, ...) along the last dimension; i indexes dimension `batch_dims` of `x`, j the next one.
    """
    if indices.val is not None and np.min(indices.val) >= 0:
        return indices
    limits = as_vector(sizes_of(x)[batch_dims : batch_dims + tuple_length(c)])
    if indices.val is not None and isinstance(limits, np.ndarray):
        known = np.asarray(indices.val)
        return mb.const(val=np.where(known < 0, known + limits, known).astype(np.int32))
    more = mb.add(x=indices, y=limits)
    return mb.select(cond=mb.less(x=indices, y=np.int32(0)), a=more, b=indices)


_HIGHEST_RANK = 5
"""The most dimensions that a tensor of Core ML has."""


def _scatter_elements(c: Context) -> None:
    x, indices, updates = (c.input(index) for index in range(3))
    axis = positive(int(c.attributes.get("axis", 0)), x.rank)
    indices = negative_from_end(indices, sizes_of(x)[axis])
    has_equal_sizes = all(place == axis or dim == x.shape[place] for place, dim in enumerate(indices.shape))
    was_bool = is_bool(x)
    if was_bool:
        x, updates = (mb.cast(x=each, dtype="int32") for each in (x, updates))
    if has_equal_sizes:
        result = mb.scatter_along_axis(data=x, indices=indices, updates=updates, axis=axis, mode=scatter_mode(c))
    else:
        result = mb.scatter_nd(data=x, indices=_tuples(indices, axis), updates=_flat(updates), mode=scatter_mode(c))
    c.give(mb.not_equal(x=result, y=np.int32(0)) if was_bool else result)


def _tuples(indices: Var, axis: int) -> Var:
    """Convert ScatterElements' indices to tuples for MIL's scatter_nd, one for each update.

    A tuple is the position of the update, in which the index replaces the coordinate along `axis`.
    """
    coordinates = [indices if place == axis else _coordinates(indices, place) for place in range(indices.rank)]
    columns = [mb.reshape(x=each, shape=[-1, 1]) for each in coordinates]
    return mb.concat(values=columns, axis=1) if len(columns) > 1 else columns[0]


def _coordinates(x: Var, axis: int) -> Var:
    """For each element of `x`, its coordinate along `axis`: int32, of the shape of `x`."""
    if has_static_shape(x):
        shape = [int(size) for size in x.shape]
        return mb.const(val=np.indices(shape, np.int32)[axis])
    size = sizes_of(x)[axis]
    line = mb.range_1d(start=np.int32(0), end=size, step=np.int32(1))
    others = [place for place in range(x.rank) if place != axis]
    line = mb.expand_dims(x=line, axes=others) if others else line
    return mb.add(x=mb.mul(x=x, y=np.int32(0)), y=line)


def _flat(updates: Var) -> Var:
    return mb.reshape(x=updates, shape=[-1]) if updates.rank != 1 else updates


def _scatter_nd(c: Context) -> None:
    x, indices, updates = (c.input(index) for index in range(3))
    indices = _from_front(c, indices, x, 0)
    known = None if indices.val is None else np.asarray(indices.val)
    rest = [] if known is None else list(x.shape[known.shape[-1] :])
    if known is not None and known.ndim > _HIGHEST_RANK and all(map(is_fixed, rest)):
        # The indices have more dimensions than Core ML allows: flatten them, and the updates, to a list of tuples.
        indices = mb.const(val=known.reshape(-1, known.shape[-1]).astype(np.int32))
        updates = mb.reshape(x=updates, shape=[len(known.reshape(-1, known.shape[-1])), *map(int, rest)])
    was_bool = is_bool(x)
    if was_bool:
        x, updates = (mb.cast(x=each, dtype="int32") for each in (x, updates))
    result = mb.scatter_nd(data=x, indices=indices, updates=updates, mode=scatter_mode(c))
    c.give(mb.not_equal(x=result, y=np.int32(0)) if was_bool else result)


TABLE: dict[str, Lowering] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
