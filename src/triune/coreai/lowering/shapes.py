"""Lowering of Reshape, Expand, ConstantOfShape and Range."""

import numpy as np

from triune.coreai.library import Value, dialect, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import (
    Dim,
    dims_of,
    refined,
    scalar,
    shaped,
    spread,
    vector,
)
from triune.coreai.lowering.values import (
    cast,
    constant,
    dtype_of,
    int32,
    rank_of,
    reshape_to,
    sizes_of,
    tensor_type,
)
from triune.graph.conversion.lowering.shapes import fill_value, known_length, reshape_sizes
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import EMPTY


def _reshape(c: Context) -> None:
    x = c.input(0)
    sizes, keeps_zero = reshape_sizes(c, "Core AI")
    if sizes is None:
        c.give(_reshape_as_computed(c, x, c.input(1), keeps_zero=keeps_zero))
        return
    own = dims_of(x)
    dims: list[Dim] = [own[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if -1 in sizes and all(isinstance(dim, int) for dim in (*dims, *own)):
        rest = int(np.prod([dim for dim in dims if dim != -1], initial=1))
        dims[sizes.index(-1)] = int(np.prod(own, initial=1)) // rest
    c.give(_with_rest(x, dims))


def _with_rest(x: Value, dims: list[Dim]) -> Value:
    """Reshape `x` to `dims`, one of which may be -1: the size that is computed from the others."""
    if -1 not in dims or all(isinstance(dim, int) for dim in dims):
        return shaped(x, dims)
    kind = [dim if isinstance(dim, int) and dim != -1 else None for dim in dims]
    return reshape_to(x, vector(dims), kind)


def _reshape_as_computed(c: Context, x: Value, shape: Value, *, keeps_zero: bool) -> Value:
    rank = known_length(c, 1, "the rank of the reshaped value")
    if not keeps_zero:
        # In the shape of a Reshape, a 0 keeps the size of the same dimension of `x`.
        own = dims_of(x)[:rank]
        own += [1] * (rank - len(own))
        shape = ops.broadcasting_where(ops.broadcasting_equal(shape, int32(0)), vector(own), shape)
    inferred = c.scope.values.shape(c.node.output[0]) or (None,) * rank
    return reshape_to(x, shape, inferred)


def _expand(c: Context) -> None:
    x = c.input(0)
    wanted = c.constant(1)
    if wanted is not None:
        c.give(spread(x, _broadcast_dims(dims_of(x), [int(each) for each in wanted])))
        return
    shape = c.input(1)
    rank = max(known_length(c, 1, "the rank of the expanded value"), rank_of(x))
    if rank_of(x):
        shape = ops.broadcast_shapes(sizes_of(x, np.uint32), cast(shape, np.uint32))
    inferred = c.scope.values.shape(c.node.output[0]) or (None,) * rank
    kind = tensor_type(inferred, dtype_of(x))
    c.give(dialect.BroadcastToOp(x, cast(shape, np.uint32), results=[kind]).result)


def _broadcast_dims(own: list[Dim], wanted: list[int]) -> list[Dim]:
    """The sizes to which the shapes `own` and `wanted` broadcast."""
    rank = max(len(own), len(wanted))
    own = [1] * (rank - len(own)) + own
    wanted = [1] * (rank - len(wanted)) + wanted
    return [one if other == 1 else other for one, other in zip(own, wanted, strict=True)]


def _constant_of_shape(c: Context) -> None:
    filler = constant(fill_value(c))
    if c.is_empty(0):
        c.give(filler)
        return
    wanted = c.constant(0)
    if wanted is not None:
        if 0 in wanted:
            c.give(EMPTY)
            return
        c.give(spread(filler, [int(each) for each in wanted]))
        return
    shape = c.input(0)
    rank = known_length(c, 0, "the rank of the filled value")
    inferred = c.scope.values.shape(c.node.output[0]) or (None,) * rank
    kind = tensor_type(inferred, dtype_of(filler))
    c.give(dialect.BroadcastToOp(filler, cast(shape, np.uint32), results=[kind]).result)


def _range(c: Context) -> None:
    start, limit, delta = (scalar(c.input(index)) for index in range(3))
    if dtype_of(start) == np.float16:
        # Refuse fp16: how many elements the range has would depend on how fp16 rounds the step.
        raise Refusal("a range of fp16; compute it in fp32 (--precision mixed --keep-fp32 Range)")
    found = ops.range_(start, limit, delta)
    c.give(refined(found, c.scope.values.shape(c.node.output[0])))


TABLE: dict[str, Lowering] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
