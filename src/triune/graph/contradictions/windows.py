"""Contradictions of operators that slide windows over an image: convolutions, pools, samples of a grid."""

from collections.abc import Iterator, Mapping, Sequence

from triune.graph.contradictions.facts import Dims, Facts, Rule, differ, must_be, must_be_an_axis


def _conv(facts: Facts, weight: int = 1, bias: int = 2) -> Iterator[str]:
    """Check Conv, ConvInteger or QLinearConv. `weight` and `bias` are the positions of these operands; `bias` is 0
    if there is none.
    """
    given, kernel, group = facts.shape(0), facts.shape(weight), facts.attributes.get("group", 1)
    if given is None or kernel is None:
        return
    found = list(_ranks(facts, given, weight, kernel)) or list(_kernel(facts, weight, kernel, group))
    yield from found
    if found:
        return
    if given[1] is not None and kernel[1] is not None and given[1] != kernel[1] * group:
        yield (
            f"{facts.described(0)} has {given[1]} channels, and {facts.described(weight)} with group {group} takes "
            f"{kernel[1] * group}"
        )
    if kernel[0] is not None and kernel[0] % group:
        yield f"the {kernel[0]} filters of {facts.described(weight)} have to be a multiple of group {group}"
    if bias:
        yield from must_be(facts, bias, [kernel[0]])
    yield from _room(facts, given, kernel[2:])


def _conv_integer(facts: Facts) -> Iterator[str]:
    yield from _conv(facts, bias=0)


def _qlinear_conv(facts: Facts) -> Iterator[str]:
    yield from _conv(facts, weight=3, bias=8)


def _conv_transpose(facts: Facts) -> Iterator[str]:
    given, kernel, group = facts.shape(0), facts.shape(1), facts.attributes.get("group", 1)
    if given is None or kernel is None:
        return
    found = list(_ranks(facts, given, 1, kernel)) or list(_kernel(facts, 1, kernel, group))
    yield from found
    if found:
        return
    if differ(given[1], kernel[0]):
        yield f"{facts.described(0)} has {given[1]} channels, and {facts.described(1)} takes {kernel[0]}"
    elif kernel[0] is not None and kernel[0] % group:
        yield f"the {kernel[0]} channels of {facts.described(1)} have to be a multiple of group {group}"
    yield from must_be(facts, 2, [None if kernel[1] is None else kernel[1] * group])
    strides, dilations = _each(facts, "strides", len(given) - 2), _each(facts, "dilations", len(given) - 2)
    for axis, more in enumerate(facts.attributes.get("output_padding", ())):
        if axis < len(strides) and not 0 <= more < max(strides[axis], dilations[axis]):
            yield (
                f"'output_padding' is {more} along axis {axis + 2}, and has to be smaller than the stride "
                f"{strides[axis]} or the dilation {dilations[axis]}"
            )


def _deform_conv(facts: Facts) -> Iterator[str]:
    yield from _conv(facts, bias=3)
    given, kernel, offsets = facts.shape(0), facts.shape(1), facts.attributes.get("offset_group", 1)
    if given is None or kernel is None or len(given) != 4 or len(kernel) != 4 or None in kernel[2:]:
        return
    if given[1] is not None and offsets and given[1] % offsets:
        yield f"the {given[1]} channels of {facts.described(0)} have to be a multiple of 'offset_group' {offsets}"
    taps = (kernel[2] or 0) * (kernel[3] or 0) * offsets
    yield from must_be(facts, 2, [given[0], 2 * taps, None, None])
    yield from must_be(facts, 4, [given[0], taps, None, None])


def _pool(facts: Facts) -> Iterator[str]:
    given, kernel = facts.shape(0), facts.attributes.get("kernel_shape", ())
    if given is None:
        return
    if len(given) < 3 or len(kernel) != len(given) - 2:
        yield f"'kernel_shape' {kernel} has to be of the {max(len(given) - 2, 1)} dimensions that a window has"
        return
    found = list(_positive(facts, len(kernel)))
    yield from found
    if found:
        return
    dilations, pads = _each(facts, "dilations", len(kernel)), _pads(facts, len(kernel))
    for axis, size in enumerate(kernel):
        extent = dilations[axis] * (size - 1) + 1
        widest = max(pads[axis], pads[axis + len(kernel)])
        if widest >= extent:
            yield f"axis {axis + 2} is padded by {widest}, which has to be less than the {extent} of a window"


def _ranks(facts: Facts, given: Dims, weight: int, kernel: Dims) -> Iterator[str]:
    if len(given) < 3 or len(kernel) != len(given):
        yield f"{facts.described(0)} and {facts.described(weight)} have to be of one rank, 3 or more"


def _kernel(facts: Facts, weight: int, kernel: Dims, group: int) -> Iterator[str]:
    """Compare the attributes of a convolution with the shape of its weight."""
    stated = facts.attributes.get("kernel_shape")
    spatial = kernel[2:]
    if group < 1:
        yield f"'group' is {group}, and has to be 1 or more"
    elif stated is not None and (len(stated) != len(spatial) or any(map(differ, stated, spatial))):
        yield f"'kernel_shape' is {stated}, and the weight is {facts.described(weight)}"
    else:
        yield from _positive(facts, len(spatial))


def _positive(facts: Facts, rank: int) -> Iterator[str]:
    """Check the lengths of strides, dilations, kernel_shape and pads, and that all of these but pads are at least 1."""
    for name in ("strides", "dilations", "kernel_shape"):
        found = facts.attributes.get(name)
        if found and (len(found) != rank or min(found) < 1):
            yield f"'{name}' is {found}, and has to be {rank} numbers of 1 or more"
    pads = facts.attributes.get("pads")
    if pads and len(pads) != 2 * rank:
        yield f"'pads' is {pads}, and has to be {2 * rank} numbers, two for each axis of a window"


def _room(facts: Facts, given: Dims, kernel: Dims) -> Iterator[str]:
    """Check that a kernel fits at least once into the padded image. A kernel that is larger by less than a stride is
    accepted: ONNX Runtime computes one result.
    """
    if facts.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        return
    dilations, strides = _each(facts, "dilations", len(kernel)), _each(facts, "strides", len(kernel))
    pads = _pads(facts, len(kernel))
    for axis, (size, width) in enumerate(zip(given[2:], kernel, strict=True)):
        if not size or width is None:
            continue
        extent, room = dilations[axis] * (width - 1) + 1, size + pads[axis] + pads[axis + len(kernel)]
        if extent >= room + strides[axis]:
            yield (
                f"a window of {extent} is larger than {facts.described(0)} along axis {axis + 2}, which with its pads "
                f"is {room}"
            )


def _each(facts: Facts, name: str, rank: int) -> Sequence[int]:
    return facts.attributes.get(name) or [1] * rank


def _pads(facts: Facts, rank: int) -> Sequence[int]:
    is_stated = facts.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "")
    return (facts.attributes.get("pads") if is_stated else None) or [0] * 2 * rank


def _unpool(facts: Facts) -> Iterator[str]:
    """Check MaxUnpool: the indices must have the shape of X."""
    given = facts.shape(0)
    if given is not None:
        yield from must_be(facts, 1, given)


def _lrn(facts: Facts) -> Iterator[str]:
    if facts.attributes.get("size", 1) < 1:
        yield f"'size' is {facts.attributes['size']}, and has to be 1 or more"


def _grid_sample(facts: Facts) -> Iterator[str]:
    given = facts.shape(0)
    if given is not None:
        yield from must_be(facts, 1, [given[0] if given else None, *[None] * (len(given) - 2), len(given) - 2])


def _affine_grid(facts: Facts) -> Iterator[str]:
    size = facts.integers(1)
    if size is None:
        return
    if len(size) not in (4, 5) or any(each < 1 for each in size):
        yield f"the size {size} has to be 4 or 5 numbers of 1 or more"
    else:
        yield from must_be(facts, 0, [size[0], len(size) - 2, len(size) - 1])


def _roi_align(facts: Facts) -> Iterator[str]:
    yield from must_be(facts, 0, [None, None, None, None])
    yield from must_be(facts, 1, [None, 4])
    regions = facts.shape(1)
    if regions is not None and regions:
        yield from must_be(facts, 2, [regions[0]])
    images, batch = facts.size(0, 0), facts.integers(2)
    if images is not None and batch and not (min(batch) >= 0 and max(batch) < images):
        yield f"'{facts.name(2)}' holds images {min(batch)} to {max(batch)}, and {facts.described(0)} has {images}"


def _reduce(facts: Facts) -> Iterator[str]:
    for axis in facts.integers(1) or ():
        yield from must_be_an_axis(facts, "axes", axis, facts.rank(0))


RULES: Mapping[str, Rule] = {
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "MaxUnpool": _unpool,
    "LRN": _lrn,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
    "RoiAlign": _roi_align,
    **dict.fromkeys(
        [
            *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
            *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
        ],
        _reduce,
    ),
}
"""The functions that find contradictions in operators with windows and in reductions, by operator."""
