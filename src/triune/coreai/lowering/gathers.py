"""Lowering of Gather and Scatter operators, and a primitive for ReverseSequence."""

from collections.abc import Sequence

import numpy as np

from triune.coreai.library import Value, ir, is_rewritten, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import (
    Dim,
    along,
    as_scalar,
    cut,
    dim_of,
    dims_of,
    expand,
    from_front,
    iota,
    known,
    product,
    shaped,
    spread,
    squeeze,
    take,
    vector,
    with_known_sizes,
)
from triune.coreai.lowering.loops import is_nested
from triune.coreai.lowering.values import (
    cast,
    concat,
    constant,
    dtype_of,
    int32,
    int32s,
    is_bool,
    rank_of,
    shape_of,
    transpose,
)
from triune.graph.axes import positive
from triune.graph.conversion.lowering.indices import scatter_mode, tuple_length


def _gather(c: Context) -> None:
    x, axis = c.input(0), positive(int(c.attributes.get("axis", 0)), rank_of(c.input(0)))
    known_place = c.constant(1)
    size = shape_of(x)[axis]
    if known_place is not None and known_place.ndim == 0 and size is not None:
        index = positive(int(known_place), size)
        c.give(squeeze(cut(x, axis, index, index + 1), [axis]))
        return
    c.give(take(x, _indices_from_front(c, [axis]), axis))


def _indices_from_front(c: Context, axes: Sequence[int]) -> Value:
    """The node's indices into dimensions `axes`. If they are constant, the size is added to negative indices.

    Apple's compiler (1.0.0b3) itself gathers from weights by constant indices, and for a negative index it reads what
    is before the first element. Its interpreter counts negative indices from the end, as ONNX does.
    """
    indices, found = c.input(1), c.constant(1)
    sizes = [shape_of(c.input(0))[axis] for axis in axes]
    limits = np.array([size for size in sizes if size is not None])
    if found is None or not (found < 0).any() or len(limits) < len(sizes):
        return indices
    limits = limits if len(limits) > 1 else limits.reshape(())
    return constant(np.where(found < 0, found + limits, found).astype(np.int32))


def _gather_elements(c: Context) -> None:
    x = c.input(0)
    axis = positive(int(c.attributes.get("axis", 0)), rank_of(x))
    indices = _indices_from_front(c, [axis])
    ends: list[Dim] = [dim_of(x, each) if each == axis else size for each, size in enumerate(dims_of(indices))]
    if any(shape_of(x)[each] is None or shape_of(x)[each] != size for each, size in enumerate(known(ends))):
        # Along all dimensions but the axis, slice `x` to the sizes of the indices: Core AI requires equal sizes, and
        # ONNX reads only the first elements.
        x = ops.slice_(x, int32s([0] * rank_of(x)), vector(ends), int32s([1] * rank_of(x)))
    c.give(ops.gather_along_axis(x, indices, int32(axis)))


def _gather_nd(c: Context) -> None:
    batch_dims = int(c.attributes.get("batch_dims", 0))
    x, indices = c.input(0), _tuples_from_front(c, batch_dims)
    if batch_dims:
        dims = dims_of(indices)[:-1]
        own = [spread(along(iota(dims[each]), each, len(dims) + 1), [*dims, 1]) for each in range(batch_dims)]
        indices = concat([*own, indices], len(dims))
    c.give(ops.gather_nd(x, indices))


def _tuples_from_front(c: Context, batch_dims: int = 0) -> Value:
    depth = shape_of(c.input(1))[-1]
    return c.input(1) if depth is None else _indices_from_front(c, range(batch_dims, batch_dims + depth))


def _scatter(c: Context, x: Value, indices: Value, updates: Value, axis: int) -> Value:
    """Scatter `updates` into `x` along dimension `axis`. All other dimensions are equal in the three operands."""
    mode = scatter_mode(c)
    was_bool = is_bool(x) and mode != "update"
    if was_bool:
        x, updates = cast(x, np.int32), cast(updates, np.int32)
    # Add, multiply, ... in fp32: Apple's interpreter (1.0.0b3) has no kernel for fp16, and the result is more precise.
    is_half = dtype_of(x) == np.float16 and mode != "update"
    if is_half:
        x, updates = cast(x, np.float32), cast(updates, np.float32)
    kind = ir.Attribute.parse(f"#coreai.scatter_mode<{mode}>")
    result = ops.scatter_along_axis(x.type, x, indices, updates, int32(axis), scatter_mode=kind)
    return cast(result, np.bool_ if was_bool else np.float16) if was_bool or is_half else result


def _may_be_empty(c: Context, axis: int) -> bool:
    """Whether the number of a scatter's indices along dimension `axis` depends on the result of an operator such as
    NonZero (see `selections`), so that it may be 0: then Apple's interpreter (1.0.0b3) ends its process.
    """
    return is_rewritten() and c.scope.values.may_be_empty(c.node.input[1], axis)


def _and_one(x: Value, axis: int) -> Value:
    """Append an element of zeros to `x` along dimension `axis`."""
    dims: list[Dim] = [1 if each == axis else size for each, size in enumerate(dims_of(x))]
    zero = cast(int32(0), dtype_of(x))
    return concat([x, spread(shaped(zero, [1] * rank_of(x)), dims)], axis)


def _and_index(indices: Value, last: Value, axis: int) -> Value:
    """Append the indices `last` to `indices` along dimension `axis`. Both have the same rank; along other dimensions
    the size of `last` may be 1, and is broadcast.
    """
    dims: list[Dim] = [1 if each == axis else size for each, size in enumerate(dims_of(indices))]
    return concat([indices, spread(last, dims)], axis)


def _scatter_elements(c: Context) -> None:
    x, indices, updates = (c.input(index) for index in range(3))
    axis = positive(int(c.attributes.get("axis", 0)), rank_of(x))
    size = dim_of(x, axis)
    if not _may_be_empty(c, axis):
        c.give(_elements_scattered(c, x, indices, updates, axis))
        return
    # Append an element, an index and an update, so that no operand is empty. The element is removed from the result.
    indices = from_front(_and_index(indices, shaped(as_scalar(size), [1] * rank_of(x)), axis), size)
    scattered = _elements_scattered(c, _and_one(x, axis), indices, _and_one(updates, axis), axis)
    c.give(cut(scattered, axis, 0, size))


def _elements_scattered(c: Context, x: Value, indices: Value, updates: Value, axis: int) -> Value:
    others = [each for each in range(rank_of(x)) if each != axis]
    if all(shape_of(x)[each] is not None and shape_of(x)[each] == shape_of(indices)[each] for each in others):
        return _scatter(c, x, indices, updates, axis)
    # Flatten `x`, and compute for each update its index there: along `axis` from the indices, along other dimensions
    # from the position of the update.
    dims = dims_of(indices)
    tuples = [along(iota(dims[each]), each, len(dims)) for each in range(len(dims))]
    tuples[axis] = from_front(indices, dim_of(x, axis))
    linear = shaped(spread(_flat_indices(tuples, dims_of(x)), dims), [product(dims)])
    flat = _scatter(c, _flat(x), linear, _flat(updates), 0)
    return shaped(flat, dims_of(x))


def _flat(x: Value) -> Value:
    return shaped(x, [product(dims_of(x))])


def _flat_indices(parts: list[Value], dims: list[Dim]) -> Value:
    """Convert indices of several dimensions, one value for each, to indices into the flattened tensor (row-major)."""
    total = parts[0]
    for part, dim in zip(parts[1:], dims[1:], strict=True):
        total = ops.broadcasting_add(ops.broadcasting_mul(total, as_scalar(dim)), part)
    return total


def _scatter_nd(c: Context) -> None:
    x, indices, updates = (c.input(index) for index in range(3))
    may_be_empty = rank_of(indices) > 1 and _may_be_empty(c, 0)
    if c.attributes.get("reduction", "none") == "none" and not is_nested() and not may_be_empty:
        c.give(ops.scatter_nd(x, _tuples_from_front(c), updates))
        return
    depth = tuple_length(c)
    last = rank_of(indices) - 1
    own = dims_of(x)
    if may_be_empty:
        # Append an update of an additional row behind the last row of `x`, so that no operand is empty. The additional
        # row is removed from the result.
        after = shaped(vector([own[0], *[0] * (depth - 1)]), [*[1] * last, depth])
        indices, updates = _and_index(indices, after, 0), _and_one(updates, 0)
    parts = [from_front(cut(indices, last, each, each + 1), own[each]) for each in range(depth)]
    count, size = product(dims_of(indices)[:-1]), product(own[depth:])
    linear = spread(shaped(_flat_indices(parts, own[:depth]), [count, 1]), [count, size])
    rows = shaped(x, [product(own[:depth]), size])
    scattered = _scatter(c, _and_one(rows, 0) if may_be_empty else rows, linear, shaped(updates, [count, size]), 0)
    c.give(shaped(cut(scattered, 0, 0, product(own[:depth])) if may_be_empty else scattered, own))


def reverse_sequence(x: Value, lengths: Value, time: int, batch: int) -> Value:
    """Reverse the first `lengths[i]` elements along dimension `time`, for each `i` of dimension `batch`."""
    rest = [each for each in range(rank_of(x)) if each not in (time, batch)]
    order = [time, batch, *rest]
    steps, rows = dim_of(x, time), dim_of(x, batch)
    step = along(iota(steps), 0, 2)
    mirrored = ops.broadcasting_sub(ops.broadcasting_sub(expand(lengths, [0]), step), int32(1))
    is_turned = ops.broadcasting_greater(expand(lengths, [0]), step)
    places = ops.broadcasting_where(is_turned, mirrored, step)
    own = spread(along(iota(rows), 1, 2), [steps, rows])
    # Give both operands the sizes that are known of either, `x` or `lengths`: Core AI cannot concatenate [..., ?] and
    # [..., 1].
    tuples = concat(with_known_sizes([expand(places, [2]), expand(own, [2])], 2), 2)
    turned = ops.gather_nd(transpose(x, order), tuples)
    return transpose(turned, [int(each) for each in np.argsort(order)])


TABLE: dict[str, Lowering] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
