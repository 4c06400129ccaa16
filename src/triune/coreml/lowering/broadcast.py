"""Broadcasting, and sizes of dimensions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triune.coreml.lowering.context import has_static_shape, is_bool, like, through_int
from triune.coreml.lowering.mb import Var, is_fixed, mb


def to_rank(x: Var, rank: int) -> Var:
    """Insert dimensions of size 1 at the front of `x` until it has rank `rank`."""
    return x if x.rank >= rank else mb.expand_dims(x=x, axes=list(range(rank - x.rank)))


def broadcast_to(x: Var, shape: Sequence[int]) -> Var:
    """Broadcast `x` to `shape` as numpy does. The shape of `x` must be known."""
    x = to_rank(x, len(shape))
    reps = [1 if dim == size else size for dim, size in zip(x.shape, shape, strict=True)]
    return mb.tile(x=x, reps=reps) if any(each != 1 for each in reps) else x


def broadcast_with(x: Var, shape: Var) -> Var:
    """Broadcast `x` as numpy does, against a value of the shape `shape`, a vector that is known only at run time.

    `x` is multiplied by ones of that shape, which changes no number, infinity or NaN.
    """

    def times_ones(each: Var) -> Var:
        return mb.mul(x=each, y=mb.fill(shape=shape, value=like(each, 1)))

    return through_int(x, times_ones)


def broadcast_shape(*values: Var) -> list[int] | None:
    """The shape that numpy's broadcasting gives `values` together; None if a size is known only at run time."""
    if not all(has_static_shape(each) for each in values):
        return None
    return [int(dim) for dim in np.broadcast_shapes(*(tuple(int(dim) for dim in each.shape) for each in values))]


def select(condition: Var, a: Var, b: Var) -> Var:
    """Write Where: `a` where `condition` is true, else `b`. All three broadcast.

    MIL's select broadcasts `a` and `b` with each other, but not with the condition.
    """
    shape = broadcast_shape(condition, a, b)
    if shape is not None:
        if broadcast_shape(a, b) != shape:
            a = broadcast_to(a, shape)
        return mb.select(cond=condition, a=a, b=b)
    if not _covers(a, condition) and not _covers(b, condition):
        a = broadcast_with(a, mb.shape(x=condition))
    return mb.select(cond=condition, a=a, b=b)


def _covers(a: Var, condition: Var) -> bool:
    """Whether broadcasting with `condition` is known not to change the shape of `a`."""
    if a.rank < condition.rank:
        return False
    dims = a.shape[a.rank - condition.rank :]
    return all(
        one == other or (is_fixed(other) and other == 1) for one, other in zip(dims, condition.shape, strict=True)
    )


def sizes_of(x: Var) -> list[Any]:
    """The size of each dimension of `x`: an int, or a scalar of the program where it is known only at run time."""
    if has_static_shape(x):
        return [int(dim) for dim in x.shape]
    shape = mb.shape(x=x)
    return [
        int(dim) if is_fixed(dim) else mb.gather(x=shape, indices=np.int32(axis), axis=0)
        for axis, dim in enumerate(x.shape)
    ]


def as_vector(sizes: Sequence[Any]) -> Any:
    """Make an int32 vector of `sizes`. Each size is an int or a scalar of the program."""
    if all(isinstance(each, int) for each in sizes):
        return np.array(sizes, np.int32)
    parts = [
        np.array([each], np.int32) if isinstance(each, int) else mb.expand_dims(x=each, axes=[0]) for each in sizes
    ]
    return mb.concat(values=parts, axis=0)


def logical(x: Var) -> Var:
    """Write x != 0, element by element; return `x` itself if it is bool."""
    return x if is_bool(x) else mb.not_equal(x=x, y=like(x, 0))
