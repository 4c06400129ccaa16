"""Find contradictions between the operands and attributes of operators that give tensors other shapes."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from triune.graph.contradictions.facts import Facts, Rule, differ, must_be, must_be_an_axis, shown


def _reshape(facts: Facts) -> Iterator[str]:
    given, wanted = facts.shape(0), facts.integers(1)
    if given is None or wanted is None:
        return
    keeps_zeros = bool(facts.attributes.get("allowzero", 0))
    low = [each for each in wanted if each < -1]
    if low:
        yield f"the shape {wanted} holds {low[0]}: a size is 0 or more, or one of them -1"
    elif wanted.count(-1) > 1:
        yield f"the shape {wanted} holds -1 more than once"
    elif keeps_zeros and -1 in wanted and 0 in wanted:
        yield f"the shape {wanted} holds both 0 and -1, and 'allowzero' is 1"
    elif not keeps_zeros and any(each == 0 and axis >= len(given) for axis, each in enumerate(wanted)):
        yield f"the shape {wanted} keeps a size by 0 that {facts.described(0)} does not have"
    else:
        result = [given[axis] if each == 0 and not keeps_zeros else each for axis, each in enumerate(wanted)]
        yield from _same_count(facts, given, result)


def _same_count(facts: Facts, given: Sequence[int | None], result: Sequence[int | None]) -> Iterator[str]:
    """Compare the numbers of elements before and after a Reshape.

    Sizes that are unknown in both shapes are taken to be equal.
    """
    before = math.prod(dim for dim in given if dim is not None)
    after = math.prod(dim for dim in result if dim not in (None, -1))
    # A target size of 0 copies a size: if that is unknown, it is unknown in both shapes, but equal. So only further
    # unknown sizes of the input leave the number of its elements open.
    is_free = len([dim for dim in given if dim is None]) > len([dim for dim in result if dim is None])
    is_open = -1 in result
    if is_open:
        fits = is_free or (before % after == 0 if after else before == 0)
    else:
        fits = (after % before == 0 if before else after == 0) if is_free else before == after
    if not fits:
        yield f"{facts.described(0)} has not the elements of the shape {shown(result)}"


def _expand(facts: Facts) -> Iterator[str]:
    given, wanted = facts.shape(0), facts.integers(1)
    if wanted is None:
        return
    if any(each < 0 for each in wanted):
        yield f"the shape {wanted} holds a negative size"
    elif given is not None:
        pairs = zip(reversed(given), reversed(wanted), strict=False)
        if any(differ(*pair) and 1 not in pair for pair in pairs):
            yield f"{facts.described(0)} cannot be broadcast with the shape {shown(wanted)}"


def _tile(facts: Facts) -> Iterator[str]:
    repeats, rank = facts.integers(1), facts.rank(0)
    if repeats is None:
        return
    if rank is not None and len(repeats) != rank:
        yield f"the repeats {repeats} have to be one number for each axis of {facts.described(0)}"
    if any(each < 0 for each in repeats):
        yield f"the repeats {repeats} have to be 0 or more"


def _constant_of_shape(facts: Facts) -> Iterator[str]:
    sizes = facts.integers(0)
    if sizes is not None and any(each < 0 for each in sizes):
        yield f"the shape {sizes} holds a negative size"


def _range(facts: Facts) -> Iterator[str]:
    for index in range(3):
        if facts.values.static_shape(facts.name(index)) not in (None, (), (1,)):
            yield f"{facts.described(index)} has to be one number"
    step = facts.constant(2)
    if step is not None and step.size == 1 and not step.reshape(-1)[0]:
        yield f"the step '{facts.name(2)}' is 0; any other number is one"


def _squeeze(facts: Facts) -> Iterator[str]:
    given, axes = facts.shape(0), facts.integers(1)
    if given is None or axes is None:
        return
    for axis in axes:
        found = list(must_be_an_axis(facts, "axes", axis, len(given)))
        yield from found
        if not found and given and given[axis] not in (None, 1):
            yield f"axis {axis} of {facts.described(0)} is of size {given[axis]}, and only one of size 1 can be removed"


def _unsqueeze(facts: Facts) -> Iterator[str]:
    rank, axes = facts.rank(0), facts.integers(1)
    if rank is None or axes is None:
        return
    new = rank + len(axes)
    if any(not -new <= axis < new for axis in axes) or len({axis % new for axis in axes}) < len(axes):
        yield f"the axes {axes} have to be different ones of a result of {new} dimensions: from {-new} to {new - 1}"


def _transpose(facts: Facts) -> Iterator[str]:
    rank, perm = facts.rank(0), facts.attributes.get("perm")
    if rank is not None and perm is not None and sorted(perm) != list(range(rank)):
        yield f"'perm' is {perm}, and has to hold each axis of {facts.described(0)} once: 0 to {rank - 1}"


def _slice(facts: Facts) -> Iterator[str]:
    starts, axes, steps = facts.integers(1), facts.integers(3), facts.integers(4)
    for index in (2, 3, 4):
        others = facts.integers(index)
        if starts is not None and others is not None and len(others) != len(starts):
            yield f"'{facts.name(1)}' holds {len(starts)} numbers and '{facts.name(index)}' {len(others)}"
            return
    if steps is not None and 0 in steps:
        yield f"the steps '{facts.name(4)}' are {steps}; a step is any number but 0"
    rank = facts.rank(0)
    if rank is None:
        return
    for axis in axes or ():
        yield from must_be_an_axis(facts, "axes", axis, rank)
    if axes is not None and len({axis % max(rank, 1) for axis in axes}) < len(axes):
        yield f"the axes {axes} name an axis of {facts.described(0)} twice"
    if axes is None and not facts.name(3) and starts is not None and len(starts) > rank:
        yield f"{facts.described(0)} has fewer dimensions than the {len(starts)} that are cut"


def _concat(facts: Facts) -> Iterator[str]:
    shapes = [(index, facts.shape(index)) for index in range(len(facts.node.input))]
    known = [(index, shape) for index, shape in shapes if shape is not None]
    axis = facts.attributes.get("axis", 0)
    if not known:
        return
    first, given = known[0]
    yield from must_be_an_axis(facts, "axis", axis, len(given))
    for index, other in known[1:]:
        if len(other) != len(given):
            yield f"{facts.described(first)} and {facts.described(index)} have to be of one rank"
            return
        for along, pair in enumerate(zip(given, other, strict=True)):
            if along != axis % len(given) and differ(*pair):
                yield f"{facts.described(first)} and {facts.described(index)} differ along axis {along}, too"
                return


def _split(facts: Facts) -> Iterator[str]:
    axis, sizes, count = facts.attributes.get("axis", 0), facts.integers(1), len(facts.node.output)
    size = facts.size(0, axis)
    yield from must_be_an_axis(facts, "axis", axis, facts.rank(0))
    if sizes is not None:
        if len(sizes) != count:
            yield f"the sizes {sizes} are {len(sizes)} of {count} outputs"
        elif any(each < 0 for each in sizes) or differ(sum(sizes), size):
            yield f"the sizes {sizes} have to be 0 or more, and all of axis {axis} of {facts.described(0)}"
    elif not facts.name(1) and size is not None:
        if "num_outputs" not in facts.attributes and size % count:
            yield f"{facts.described(0)} cannot be split into {count} equal parts along axis {axis}"
        elif -(-size // count) * (count - 1) > size:
            yield f"{facts.described(0)} is too small for {count} parts along axis {axis}"


def _pad(facts: Facts) -> Iterator[str]:
    given, pads, axes = facts.shape(0), facts.integers(1), facts.integers(3)
    if given is None or pads is None or (facts.name(3) and axes is None):
        return
    along = list(range(len(given))) if axes is None else axes
    for axis in along:
        yield from must_be_an_axis(facts, "axes", axis, len(given))
    if any(not -len(given) <= axis < len(given) for axis in along):
        return
    if len(pads) != 2 * len(along):
        yield f"the pads {pads} have to be {2 * len(along)} numbers, two for each axis"
        return
    mode = facts.attributes.get("mode", "constant")
    for place, axis in enumerate(along):
        size, before, after = given[axis], pads[place], pads[place + len(along)]
        if size is None:
            continue
        told = f"{facts.described(0)} is padded by {before} and {after} along axis {axis}"
        kept = size + min(before, 0) + min(after, 0)
        if size + before + after < 0:
            yield f"{told}, which takes more away than there is"
        elif mode == "reflect" and max(before, after) > max(size - 1, 0):
            yield f"{told}, and mode 'reflect' can add up to {max(size - 1, 0)} there"
        elif mode != "constant" and kept < 1 and max(before, after) > 0:
            yield f"{told}, and mode '{mode}' has no elements to repeat there"


def _blocks(facts: Facts) -> Iterator[str]:
    """Check DepthToSpace and SpaceToDepth."""
    size, shape = facts.attributes.get("blocksize", 0), facts.shape(0)
    if shape is not None and len(shape) != 4:
        yield f"{facts.described(0)} has to be of rank 4"
    elif size < 1:
        yield f"'blocksize' is {size}, and has to be 1 or more"
    elif shape is not None and facts.node.op_type == "DepthToSpace":
        if shape[1] is not None and shape[1] % size**2:
            yield f"the channels of {facts.described(0)} have to be a multiple of 'blocksize' squared, {size**2}"
    elif shape is not None and any(each is not None and each % size for each in shape[2:]):
        yield f"height and width of {facts.described(0)} have to be multiples of 'blocksize', {size}"


def _resize(facts: Facts) -> Iterator[str]:
    given, scales, sizes = facts.shape(0), facts.constant(2), facts.integers(3)
    axes = facts.attributes.get("axes")
    rank = None if given is None else len(given)
    for axis in axes or ():
        yield from must_be_an_axis(facts, "axes", axis, rank)
    num = rank if axes is None else len(axes)
    if scales is not None and scales.size:
        if differ(scales.size, num):
            yield f"the scales {scales.tolist()} have to be {num} numbers, one for each axis"
        elif not np.all(scales > 0):
            yield f"the scales {scales.tolist()} have to be larger than 0"
    if sizes:
        if differ(len(sizes), num):
            yield f"the sizes {sizes} have to be {num} numbers, one for each axis"
        elif any(each < 1 for each in sizes):
            yield f"the sizes {sizes} have to be 1 or more"


def _trilu(facts: Facts) -> Iterator[str]:
    rank = facts.rank(0)
    if rank is not None and rank < 2:
        yield f"{facts.described(0)} has to be of rank 2 or more"


def _along_axis(facts: Facts) -> Iterator[str]:
    """Check CumSum and CumProd."""
    axis = facts.integers(1)
    if axis is not None and len(axis) == 1:
        yield from must_be_an_axis(facts, "axis", axis[0], facts.rank(0))
    for name in ("exclusive", "reverse"):
        if facts.attributes.get(name, 0) not in (0, 1):
            yield f"'{name}' is {facts.attributes[name]}, and has to be 0 or 1"


def _crop_pad(facts: Facts) -> Iterator[str]:
    """Check CenterCropPad."""
    axes, sizes, rank = facts.attributes.get("axes"), facts.integers(1), facts.rank(0)
    for axis in axes or ():
        yield from must_be_an_axis(facts, "axes", axis, rank)
    num = rank if axes is None else len(axes)
    if sizes is not None and differ(len(sizes), num):
        yield f"the sizes {sizes} have to be {num} numbers, one for each axis"


def _col2im(facts: Facts) -> Iterator[str]:
    image, block, given = facts.integers(1), facts.integers(2), facts.shape(0)
    if image is None or block is None:
        return
    if len(image) != len(block) or not image:
        yield f"the image {image} and the block {block} have to be of one rank"
        return
    ones, zeros = [1] * len(image), [0] * 2 * len(image)
    strides, dilations = facts.attributes.get("strides", ones), facts.attributes.get("dilations", ones)
    pads = facts.attributes.get("pads", zeros)
    if (len(strides), len(dilations), len(pads)) != (len(ones), len(ones), len(zeros)):
        yield f"'strides', 'dilations' and 'pads' have to be for {len(image)} axes"
        return
    if any(each < 1 for each in (*strides, *dilations, *block)):
        yield f"the block {block}, 'strides' {strides} and 'dilations' {dilations} have to be 1 or more"
        return
    places = 1
    for axis, size in enumerate(image):
        extent = size + pads[axis] + pads[axis + len(image)] - dilations[axis] * (block[axis] - 1) - 1
        places *= extent // strides[axis] + 1
    if given is not None and len(given) == 3:
        area = math.prod(block)
        if differ(given[2], places):
            yield f"{facts.described(0)} has {given[2]} blocks, and {places} blocks {block} fit into the image {image}"
        elif given[1] is not None and given[1] % area:
            yield f"the rows of {facts.described(0)} have to be a multiple of the {area} elements of a block"
    else:
        yield from must_be(facts, 0, [None, None, None])


def _dft(facts: Facts) -> Iterator[str]:
    parts = facts.size(0, -1)
    if parts not in (None, 1, 2):
        yield f"the last size of {facts.described(0)} is for real numbers 1 and for complex ones 2"


RULES: Mapping[str, Rule] = {
    "DFT": _dft,
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Concat": _concat,
    "Split": _split,
    "Pad": _pad,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
    "Resize": _resize,
    "Trilu": _trilu,
    "CumSum": _along_axis,
    "CumProd": _along_axis,
    "CenterCropPad": _crop_pad,
    "Col2Im": _col2im,
}
"""The functions that find contradictions in operators that change shapes, by operator."""
