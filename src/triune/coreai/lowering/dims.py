"""Sizes of dimensions, each an int or a scalar of the program, and operations that take such sizes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from triune.coreai.library import Value, dialect, ir, ops
from triune.coreai.lowering.known import Known
from triune.coreai.lowering.values import (
    cast,
    concat,
    constant,
    dtype_of,
    int32,
    int32s,
    rank_of,
    reshape,
    reshape_to,
    shape_of,
    size_of,
    tensor_type,
    transpose,
)

Dim: TypeAlias = int | Value
"""The size of a dimension: a number, or a scalar of int32 that is computed at run time."""


def dim_of(x: Value, axis: int) -> Dim:
    """The size of dimension `axis` of `x`: an int, or a scalar of the program if it is known only at run time."""
    size = shape_of(x)[axis]
    return size_of(x, axis) if size is None else size


def dims_of(x: Value) -> list[Dim]:
    """The sizes of all dimensions of `x`."""
    return [dim_of(x, axis) for axis in range(rank_of(x))]


def known(dims: Sequence[Dim]) -> list[int | None]:
    """Replace sizes that are known only at run time by None."""
    return [dim if isinstance(dim, int) else None for dim in dims]


def as_scalar(dim: Dim) -> Value:
    """Convert a size to a scalar of int32."""
    return constant(np.int32(dim)) if isinstance(dim, int) else dim


def vector(dims: Sequence[Dim]) -> Value:
    """Make an int32 vector of sizes or other integers, each an int or a scalar of the program."""
    if all(isinstance(dim, int) for dim in dims):
        return int32s([int(dim) for dim in dims])
    parts: list[Value] = []
    run: list[int] = []
    for dim in dims:
        if isinstance(dim, int):
            run.append(dim)
            continue
        parts += [int32s(run)] if run else []
        parts.append(ops.reshape(dim, int32s([1])))
        run = []
    return concat([*parts, int32s(run)] if run else parts, 0)


def product(dims: Sequence[Dim]) -> Dim:
    """The product of all sizes."""
    number = int(np.prod([dim for dim in dims if isinstance(dim, int)], initial=1))
    computed = [dim for dim in dims if not isinstance(dim, int)]
    if not computed:
        return number
    total = computed[0]
    for dim in computed[1:]:
        total = ops.mul(total, dim)
    return total if number == 1 else ops.mul(total, as_scalar(number))


def element(x: Value, place: int) -> Value:
    """One element of a vector, as a scalar."""
    return ops.gather_nd(x, int32s([place]))


def scalar(x: Value) -> Value:
    """Reshape a value of one element to a scalar."""
    return x if rank_of(x) == 0 else ops.reshape(x, int32s([]))


def retyped(x: Value, shape: Sequence[int | None]) -> Value:
    """Return `x` with a type that declares `shape`, in which None is an unknown size. The elements stay the same, but
    other sizes may be known than in the type of `x`.
    """
    if shape_of(x) == tuple(shape):
        return x
    return reshape_to(x, cast(ops.get_shape(x), np.int32), shape)


def refined(x: Value, shape: Sequence[int | None] | None) -> Value:
    """Return `x` with a type in which unknown sizes are replaced by those in `shape`; None or another rank changes
    nothing.
    """
    if shape is None or len(shape) != rank_of(x):
        return x
    return retyped(x, [own if own is not None else dim for own, dim in zip(shape_of(x), shape, strict=True)])


def with_known_sizes(values: Sequence[Value], axis: int) -> list[Value]:
    """Give each of `values` the sizes that are known of any of them, except in dimension `axis`.

    All other dimensions must be equal, as for a concatenation.
    """
    sizes = zip(*map(shape_of, values), strict=True)
    shape = [next((size for size in each if size is not None), None) for each in sizes]
    shape[axis] = None
    return [refined(value, shape) for value in values]


def shaped(x: Value, dims: Sequence[Dim]) -> Value:
    """Reshape `x` to the sizes `dims`."""
    numbers = known(dims)
    if numbers.count(None) == 0:
        return reshape(x, [dim for dim in numbers if dim is not None])
    if numbers.count(None) == 1:
        return reshape(x, [-1 if dim is None else dim for dim in numbers])
    return reshape_to(x, vector(dims), numbers)


def spread(x: Value, dims: Sequence[Dim]) -> Value:
    """Broadcast `x` to the sizes `dims`."""
    numbers = known(dims)
    if list(shape_of(x)) == numbers and None not in numbers:
        return x
    target = cast(vector(dims), np.uint32)
    return dialect.BroadcastToOp(x, target, results=[tensor_type(numbers, dtype_of(x))]).result


def repeated(x: Value, counts: Sequence[Dim]) -> Value:
    """Repeat `x` along each dimension as often as `counts` says, by a broadcast.

    Core AI's tile is not used: if a tile repeats a constant once in a function of fixed shapes, the compiler (1.0.0b3)
    replaces the tile by its operand, whose type differs, and the process ends in an assertion.
    """
    separated: list[Dim] = []
    spread_out: list[Dim] = []
    result_sizes: list[Dim] = []
    for size, count in zip(dims_of(x), counts, strict=True):
        if isinstance(count, int) and count == 1:
            separated.append(size)
            spread_out.append(size)
        elif isinstance(size, int) and size == 1:
            separated.append(1)
            spread_out.append(count)
        else:
            separated += [1, size]
            spread_out += [count, size]
        result_sizes.append(product([size, count]))
    wide = spread(x if len(separated) == rank_of(x) else shaped(x, separated), spread_out)
    return wide if len(separated) == rank_of(x) else shaped(wide, result_sizes)


def elements(vector: Value) -> list[Dim]:
    """The elements of a vector of integers: ints if the vector is constant, else scalars of the program. Of a
    concatenation, the elements of each operand are read in this way.
    """
    operation = vector.owner
    is_joined = not isinstance(operation, ir.Block) and operation.operation.name == "coreai.concat"
    pieces = list(operation.operands)[1:] if is_joined else [vector]
    found: list[Dim] = []
    for piece in pieces:
        numbers = Known().numbers(piece)
        length = shape_of(piece)[0]
        if numbers is not None:
            found += [int(each) for each in numbers]
        elif length is not None:
            found += [cast(element(piece, place), np.int32) for place in range(length)]
    return found


def iota(size: Dim) -> Value:
    """The vector 0, 1, ..., size - 1 in int32."""
    if isinstance(size, int):
        return constant(np.arange(size, dtype=np.int32))
    return ops.range_(int32(0), size, int32(1))


def along(x: Value, axis: int, rank: int) -> Value:
    """Reshape a vector to rank `rank`: its elements are along dimension `axis`, and all other sizes are 1."""
    return shaped(x, [dim_of(x, 0) if each == axis else 1 for each in range(rank)])


def expand(x: Value, axes: Sequence[int]) -> Value:
    """Insert dimensions of size 1; `axes` are their indices in the result."""
    return ops.expand_dims(x, int32s(axes)) if axes else x


def squeeze(x: Value, axes: Sequence[int]) -> Value:
    """Remove the dimensions `axes`, whose sizes are 1."""
    if not axes:
        return x
    if all(shape_of(x)[axis] == 1 for axis in axes):
        return ops.shrink_dims(x, int32s(axes))
    return shaped(x, [dim for axis, dim in enumerate(dims_of(x)) if axis not in axes])


def take(x: Value, indices: Value, axis: int) -> Value:
    """Write ONNX's Gather along dimension `axis`. The dimensions of `indices` replace that dimension."""
    rank, more = rank_of(x), rank_of(indices)
    front = [axis, *(each for each in range(rank) if each != axis)]
    taken = ops.gather_nd(transpose(x, front), expand(indices, [more]))
    order = [*range(more, more + axis), *range(more), *range(more + axis, more + rank - 1)]
    return transpose(taken, order)


def row(x: Value, place: int | Value) -> Value:
    """Write `x[place]`: the element at index `place` along the first dimension, which is removed."""
    if isinstance(place, int):
        return squeeze(cut(x, 0, place, place + 1), [0])
    return ops.gather_nd(x, ops.reshape(place, int32s([1])))


def cut(x: Value, axis: int, start: Dim, end: Dim) -> Value:
    """Slice `x` along dimension `axis`, from `start` to before `end`."""
    rank = rank_of(x)
    starts: list[Dim] = [0] * rank
    ends = [np.iinfo(np.int32).max if size is None else size for size in shape_of(x)]
    starts[axis] = start
    bounds: list[Dim] = [*ends[:axis], end, *ends[axis + 1 :]]
    return ops.slice_(x, vector(starts), vector(bounds), int32s([1] * rank))


def from_front(indices: Value, size: Dim) -> Value:
    """Add `size` to the negative elements of `indices`, which count from the end."""
    more = ops.broadcasting_add(indices, as_scalar(size))
    is_behind = ops.broadcasting_greater(int32(0), indices)
    return ops.broadcasting_where(is_behind, more, indices)
