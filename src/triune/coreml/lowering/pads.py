"""Lowering of Pad."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering.broadcast import as_vector, broadcast_to, sizes_of
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    has_static_shape,
    is_bool,
    is_float,
    like,
    through_int,
)
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.graph.axes import positive


def _pad(c: Context) -> None:
    x = c.input(0)
    if c.constant(1) is None and _is_plain(c, x):
        c.give(_computed(c, x))
        return
    mode = c.attributes.get("mode", "constant")
    if c.constant(1) is None and mode != "constant" and not c.has(3):
        c.give(_gathered(c, x, mode))
        return
    pads = c.ints(1, "how much is padded")
    axes = c.ints(3, "the padded axes") if c.has(3) else list(range(x.rank))
    begins, ends = [0] * x.rank, [0] * x.rank
    for index, axis in enumerate(axes):
        begins[positive(axis, x.rank)] = pads[index]
        ends[positive(axis, x.rank)] = pads[index + len(axes)]
    if mode == "constant":
        # Pad before removing elements: a token's only predecessor is padding, and nothing would be left before it.
        more = ([max(each, 0) for each in side] for side in (begins, ends))
        c.give(_crop(_constant(c, x, *more), begins, ends))
        return
    for axis, (before, after) in enumerate(zip(begins, ends, strict=True)):
        if before or after:
            x = _with_repeated(x, axis, before, after, mode)
    c.give(x)


def _is_plain(c: Context, x: Var) -> bool:
    """Whether MIL's pad accepts amounts that are computed at run time: it does for floats that are padded with a
    constant. The axes must be known.
    """
    is_constant = c.attributes.get("mode", "constant") == "constant" and (not c.has(2) or c.constant(2) is not None)
    return is_constant and is_float(x) and (not c.has(3) or c.constant(3) is not None)


def _computed(c: Context, x: Var) -> Var:
    """Pad by amounts that are computed at run time. The program fails if one is negative."""
    value = c.constant(2) if c.has(2) else np.zeros(())
    axes = [positive(axis, x.rank) for axis in c.ints(3, "the padded axes")] if c.has(3) else list(range(x.rank))
    # Bring the amounts into MIL's order: before and after the first axis, before and after the second, and so on, for
    # all axes. ONNX lists the amounts before each of the padded axes first, then the amounts after each of them.
    amounts = mb.concat(values=[mb.cast(x=c.input(1), dtype="int32"), np.zeros(1, np.int32)], axis=0)
    places = np.full((x.rank, 2), 2 * len(axes), np.int32)
    for index, axis in enumerate(axes):
        places[axis] = index, index + len(axes)
    widths = mb.gather(x=amounts, indices=places.reshape(-1), axis=0)
    filler = 0.0 if value is None else float(value.reshape(-1)[0])
    return mb.pad(x=x, pad=widths, mode="constant", constant_val=like(x, filler))


def _gathered(c: Context, x: Var, mode: str) -> Var:
    """Repeat elements of `x` by amounts that are computed at run time: a gather along each axis."""
    for axis in range(x.rank):
        before, after = (_element(c.input(1), place) for place in (axis, axis + x.rank))
        if any(each.val is None or int(each.val) for each in (before, after)):
            size = _element(mb.shape(x=x), axis)
            line = mb.range_1d(start=mb.mul(x=before, y=np.int32(-1)), end=mb.add(x=size, y=after), step=np.int32(1))
            places = _places(line, size, mode)
            x = through_int(x, lambda each, places=places, axis=axis: mb.gather(x=each, indices=places, axis=axis))
    return x


def _places(line: Var, size: Var, mode: str) -> Var:
    """For each element of a padded axis, the index of the element of `x` that it copies. `line` has the positions
    relative to the axis, whose own elements are 0 to `size` - 1.
    """
    if mode == "wrap":
        return mb.mod(x=line, y=size)
    last = mb.sub(x=size, y=np.int32(1))
    if mode == "edge":
        return mb.minimum(x=mb.maximum(x=line, y=np.int32(0)), y=last)
    # A mirrored axis repeats with a period of 2 * (size - 1): all elements forwards, then all except the first and last
    # backwards. A single element repeats itself.
    period = mb.maximum(x=mb.mul(x=last, y=np.int32(2)), y=np.int32(1))
    forth = mb.mod(x=line, y=period)
    return mb.minimum(x=forth, y=mb.sub(x=period, y=forth))


def _element(vector: Var, place: int) -> Var:
    """The element of a vector at index `place`, as a scalar."""
    return mb.squeeze(x=mb.slice_by_index(x=vector, begin=[place], end=[place + 1]), axes=[0])


def _crop(x: Var, begins: list[int], ends: list[int]) -> Var:
    """Remove elements at each end whose padding is negative: -2 removes two."""
    if min(*begins, *ends, 0) >= 0:
        return x
    begin, cut = ([max(-each, 0) for each in side] for side in (begins, ends))
    if any(is_fixed(size) and one + other >= size for size, one, other in zip(x.shape, begin, cut, strict=True)):
        raise Refusal("an empty result: Core ML has no empty tensors")
    end = [-each for each in cut]
    return mb.slice_by_index(
        x=x, begin=begin, end=end, begin_mask=[each == 0 for each in begin], end_mask=[each == 0 for each in cut]
    )


def _constant(c: Context, x: Var, begins: list[int], ends: list[int]) -> Var:
    if not any(begins) and not any(ends):
        return x
    value = c.constant(2) if c.has(2) else np.zeros(())
    if is_float(x) and value is not None:
        widths = [each for pair in zip(begins, ends, strict=True) for each in pair]
        return mb.pad(x=x, pad=widths, mode="constant", constant_val=like(x, float(value.reshape(-1)[0])))
    filler = c.input(2) if value is None else mb.const(val=like(x, value.reshape(-1)[0].item()))
    if filler.rank:
        filler = mb.squeeze(x=filler, axes=list(range(filler.rank)))
    if is_bool(x):
        filler = mb.cast(x=filler, dtype="int32")
    return through_int(x, lambda each: _with_blocks(each, filler, begins, ends))


def _with_blocks(x: Var, filler: Var, begins: list[int], ends: list[int]) -> Var:
    """Pad `x` with the scalar `filler`: concatenate filled blocks before and after it along each axis."""
    for axis, sides in enumerate(zip(begins, ends, strict=True)):
        blocks = [_block(x, axis, length, filler) if length else None for length in sides]
        values = [each for each in (blocks[0], x, blocks[1]) if each is not None]
        x = mb.concat(values=values, axis=axis) if len(values) > 1 else x
    return x


def _block(x: Var, axis: int, length: int, filler: Var) -> Var:
    """A tensor of the shape of `x`, but of size `length` along `axis`, whose elements are all `filler`."""
    sizes = sizes_of(x)
    sizes[axis] = length
    if has_static_shape(x):
        return broadcast_to(filler, sizes)
    return mb.add(x=mb.fill(shape=as_vector(sizes), value=like(filler, 0)), y=filler)


def _with_repeated(x: Var, axis: int, before: int, after: int, mode: str) -> Var:
    """Pad one axis by elements of `x`, as numpy's `mode` does: by MIL's pad, or by a gather of padded indices."""
    if before < 0 or after < 0:
        raise Refusal(f"negative padding in mode '{mode}'; use Slice")
    is_native = is_float(x) and axis >= x.rank - 2 and x.rank >= 2 and mode in ("reflect", "edge")
    if not is_fixed(x.shape[axis]) and is_native:
        widths = [0] * (2 * (x.rank - axis))
        widths[0], widths[1] = before, after
        return mb.pad(x=x, pad=widths, mode="reflect" if mode == "reflect" else "replicate")
    if not is_fixed(x.shape[axis]):
        size = sizes_of(x)[axis]
        line = mb.range_1d(start=np.int32(-before), end=mb.add(x=size, y=np.int32(after)), step=np.int32(1))
        places = _places(line, size, mode)
        return through_int(x, lambda each: mb.gather(x=each, indices=places, axis=axis))
    size = int(x.shape[axis])
    numpy_pad: Any = np.pad
    known: NDArray[np.int32] = numpy_pad(np.arange(size, dtype=np.int32), (before, after), mode=mode)
    return through_int(x, lambda each: mb.gather(x=each, indices=known, axis=axis))


TABLE: dict[str, Lowering] = {"Pad": _pad}
