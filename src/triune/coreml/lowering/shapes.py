"""Lowering of operators whose operand is a shape (Reshape, Unsqueeze, Expand, ConstantOfShape, Range), and of Trilu."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import as_vector, broadcast_to, broadcast_with, select, sizes_of, to_rank
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    dtype_name,
    has_static_shape,
    is_bool,
    is_float,
    like,
)
from triune.coreml.lowering.linear import product_of_images
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.graph.conversion.lowering.shapes import fill_value, known_length, reshape_sizes, trilu, unsqueezed


def _reshape(c: Context) -> None:
    x = c.input(0)
    sizes, keeps_zero = reshape_sizes(c, "Core ML")
    if sizes is None:
        if x.rank == 0:
            raise Refusal("a scalar reshaped to a computed shape; fix the shape")
        # A 0 in the shape means that the size of `x` is kept, unless the attribute allowzero is set.
        c.give(mb.reshape(x=x, shape=_with_zeros(x, c.input(1), keeps_zero=keeps_zero)))
        return
    if not sizes:
        c.give(to_scalar(x))
        return
    if min(sizes) < -1:
        raise Refusal(f"its shape is {sizes}; give sizes of 0 or more, and at most one -1, which means the rest")
    c.give(mb.reshape(x=x, shape=_target(x, sizes)))


def to_scalar(x: Var) -> Var:
    """Reshape a value of one element to a scalar."""
    if x.rank == 0:
        return x
    if not all(is_fixed(size) for size in x.shape):
        # Reshape to one dimension first: a squeeze alone would leave dimensions of unknown size in its result's type.
        x = mb.reshape(x=x, shape=[1])
    return mb.squeeze(x=x, axes=list(range(x.rank)))


def _target(x: Var, sizes: list[int]) -> Any:
    """The shape for MIL's reshape. A 0 in `sizes`, which keeps the size of `x`, becomes that size or -1."""
    filled = [int(x.shape[axis]) if each == 0 and is_fixed(x.shape[axis]) else each for axis, each in enumerate(sizes)]
    if 0 not in filled:
        return filled
    # A 0 keeps a size in MIL's reshape, too, but not if other sizes are symbols. So replace a single 0 by -1.
    if filled.count(0) == 1 and -1 not in filled:
        return [-1 if each == 0 else each for each in filled]
    dims = sizes_of(x)
    return as_vector([dims[axis] if each == 0 else each for axis, each in enumerate(filled)])


def _with_zeros(x: Var, shape: Var, *, keeps_zero: bool) -> Var:
    """Replace zeros in a shape that is known only at run time by the sizes of `x`, unless `keeps_zero`."""
    if keeps_zero or not is_fixed(shape.shape[0]):
        return shape
    length = int(shape.shape[0])
    own = sizes_of(x)[:length]
    own += [1] * (length - len(own))
    if shape.sym_val is not None:
        # A symbol is the size of a dimension, which is never 0 in Core ML, so only known zeros are replaced.
        known = [not is_fixed(each) or each != 0 for each in shape.sym_val]
        if all(known):
            return shape
        return as_vector([_element(shape, place) if known[place] else own[place] for place in range(length)])
    return mb.select(cond=mb.equal(x=shape, y=np.int32(0)), a=as_vector(own), b=shape)


def _element(shape: Var, place: int) -> Any:
    size = shape.sym_val[place]
    return int(size) if is_fixed(size) else mb.gather(x=shape, indices=np.int32(place), axis=0)


def _unsqueeze(c: Context) -> None:
    x, axes = c.input(0), unsqueezed(c)
    product = product_of_images(x, axes)
    c.give(c.builder.unsqueeze(x, axes) if product is None else product)


def _expand(c: Context) -> None:
    x = c.input(0)
    wanted = c.constant(1)
    if wanted is None:
        known_length(c, 1, "the rank of the expanded value")
        c.give(broadcast_with(x, c.input(1)))
    elif has_static_shape(x):
        form = tuple(int(each) for each in wanted)
        c.give(broadcast_to(x, np.broadcast_shapes(tuple(int(dim) for dim in x.shape), form)))
    else:
        x = to_rank(x, len(wanted))
        kept = [1] * (x.rank - len(wanted)) + [int(each) for each in wanted]
        reps = [size if is_fixed(dim) and dim == 1 else 1 for dim, size in zip(x.shape, kept, strict=True)]
        if any(not is_fixed(dim) and size != 1 for dim, size in zip(x.shape, kept, strict=True)):
            c.give(broadcast_with(x, mb.const(val=wanted.astype(np.int32))))
        else:
            c.give(mb.tile(x=x, reps=reps))


def _constant_of_shape(c: Context) -> None:
    value = fill_value(c)
    c.give(mb.fill(shape=c.input(0), value=bool(value) if value.dtype == np.bool_ else value))


def _range(c: Context) -> None:
    start, limit, delta = (c.input(index) for index in range(3))
    if is_float(start) and any(c.constant(index) is None for index in (0, 2)):
        # The number of elements of a range of floats depends on the rounding of (limit - start) / step.
        raise Refusal(f"a range of {dtype_name(start)} whose start or step is computed; make them constants")
    c.give(mb.range_1d(start=start, end=limit, step=delta))


def _trilu(c: Context) -> None:
    x = c.input(0)
    known = c.constant(1) if c.has(1) else np.zeros(1)
    is_upper = bool(c.attributes.get("upper", 1))
    k = None if known is None else int(known.reshape(-1)[0])
    if k is not None and all(map(is_fixed, x.shape[-2:])):
        ones = np.ones([int(size) for size in x.shape[-2:]], np.bool_)
        c.give(_masked(x, np.triu(ones, k) if is_upper else np.tril(ones, k)))
    elif k is not None and (k <= 0 if is_upper else k >= 0):
        c.give(mb.band_part(x=x, lower=-k if is_upper else -1, upper=-1 if is_upper else k))
    else:
        # MIL's band_part cannot leave out the main diagonal, so compare the indices of rows and columns instead.
        trilu(c)


def _masked(x: Var, mask: NDArray[np.bool_]) -> Var:
    """Return `x` where the constant mask is true, else 0. A product with the mask would turn infinities into NaN."""
    if is_bool(x):
        return mb.logical_and(x=x, y=mask)
    return select(mb.const(val=mask), x, mb.const(val=like(x, 0)))


TABLE: dict[str, Lowering] = {
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Trilu": _trilu,
}
