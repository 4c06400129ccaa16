"""Find which channels of a value (B, S, C) each head of an attention consists of.

B is the batch, S the steps of the sequence, C the channels. From a head, the search goes back through Reshape,
Transpose, Slice, Split, Gather, Expand and scales to a value (B, S, C), whose channels the head selects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.dims import Dim
from triune.graph.index import Index, perm_of
from triune.graph.values import attributes_of

BATCH, STEPS = "batch", "steps"

IsSource: TypeAlias = Callable[[str], bool]
"""A function that returns whether the search back from a value ends at the value of this name, (B, S, C)."""


@dataclass(frozen=True, slots=True)
class Channels:
    """An axis of selected channels: `size` channels at a distance of `stride`, each repeated `times` times in a row.

    For instance, 4 heads of 64 channels, in (B, S, 256), have the axes Channels(4, 64) and Channels(64, 1).
    """

    size: int
    stride: int
    times: int = 1

    @property
    def length(self) -> int:
        """The size of the axis."""
        return self.size * self.times


Axis = str | Channels
"""The content of an axis of a value: BATCH, STEPS, or some of the channels."""


@dataclass(frozen=True, slots=True)
class Heads:
    """A value made of channels of another value, its source, and multiplied by `scale`.

    Attributes:
        source: the name of a value (B, S, C), or (B, heads, S, width) if `is_split`, whose C = heads * width channels
            are those of all heads in order.
        is_split: whether the source already has an axis of heads.
        num_channels: C, the number of channels of the source.
        axes: what each axis of the value runs over.
        offset: the index of the first selected channel.
        scale: the factor by which the source is multiplied.
    """

    source: str
    is_split: bool
    num_channels: int
    axes: tuple[Axis, ...]
    offset: int = 0
    scale: float = 1

    def moved(self, axes: Sequence[Axis], *, offset: int | None = None, scale: float | None = None) -> "Heads":
        """A copy with other axes, and another offset or scale if given."""
        return Heads(
            self.source,
            self.is_split,
            self.num_channels,
            tuple(axes),
            self.offset if offset is None else offset,
            self.scale if scale is None else scale,
        )


@dataclass(frozen=True, slots=True)
class Split:
    """A value divided into heads.

    Attributes:
        heads: all heads together, of shape (B, heads, S, width) or (B, heads, width, S).
        num_heads: the number of heads.
        times: how many consecutive heads are equal: above 1 if several heads share their keys or values.
        width: the number of channels of each head.
        stride: the distance, in channels, from the start of one head to that of the next.
    """

    heads: Heads
    num_heads: int
    times: int
    width: int
    stride: int


def read_heads(heads: Heads, *, is_transposed: bool = False) -> Split | None:
    """Interpret a value (B, heads, S, width), or (B, heads, width, S) if `is_transposed`, as heads; None if its axes do
    not match.
    """
    if len(heads.axes) != 4:
        return None
    batch, several, steps, width = heads.axes
    if is_transposed:
        steps, width = width, steps
    if batch != BATCH or steps != STEPS or not isinstance(several, Channels) or not isinstance(width, Channels):
        return None
    if width.times != 1 or (width.stride != 1 and width.size != 1):
        return None
    return Split(heads, several.length, several.times, width.size, several.stride)


def trace(index: Index, is_source: IsSource, name: str) -> Heads | None:
    """Find the value from which `name` selects channels, and which channels these are. None if `name` is not a float of
    rank 3 or 4 with known sizes.
    """
    node = index.producer(name)
    found = None
    if node is not None and not (index.rank(name) == 3 and (is_source(name) or node.op_type == "Transpose")):
        found = _through_node(index, is_source, node, name)
    return found or _as_source(index, name)


def _as_source(index: Index, name: str) -> Heads | None:
    dims = index.dims(name)
    if dims is None or not index.is_float(name):
        return None
    if len(dims) == 3 and isinstance(dims[2], int):
        return Heads(name, False, dims[2], (BATCH, STEPS, Channels(dims[2], 1)))
    if len(dims) == 4 and isinstance(dims[1], int) and isinstance(dims[3], int):
        heads, width = dims[1], dims[3]
        return Heads(name, True, heads * width, (BATCH, Channels(heads, width), STEPS, Channels(width, 1)))
    return None


def _through_node(index: Index, is_source: IsSource, node: NodeProto, name: str) -> Heads | None:
    match node.op_type:
        case "Mul" | "Div":
            return _scaled(index, is_source, node)
        case "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Expand" | "Slice" | "Split" | "Gather":
            given = trace(index, is_source, node.input[0])
        case _:
            return None
    if given is None:
        return None
    match node.op_type:
        case "Reshape":
            axes = _axes_after_reshape(given.axes, index.dims(node.input[0]), index.dims(name))
            return None if axes is None else given.moved(axes)
        case "Transpose":
            return given.moved([given.axes[axis] for axis in perm_of(node, len(given.axes))])
        case "Squeeze":
            return _squeezed(index, node, given)
        case "Unsqueeze":
            return _unsqueezed(index, node, given)
        case "Expand":
            return _repeated(index, node, given)
        case _:
            return _selected(index, node, name, given)


def _scaled(index: Index, is_source: IsSource, node: NodeProto) -> Heads | None:
    for operand in (0, 1) if node.op_type == "Mul" else (1,):
        factor = index.scalar(node.input[operand])
        if factor is None or factor == 0:
            continue
        given = trace(index, is_source, node.input[1 - operand])
        rank = index.rank(node.input[operand]) or 0
        if given is None or rank > len(given.axes):
            return None
        return given.moved(given.axes, scale=given.scale * (factor if node.op_type == "Mul" else 1 / factor))
    return None


def _axes_after_reshape(
    axes: tuple[Axis, ...], dims: tuple[Dim, ...] | None, result: tuple[Dim, ...] | None
) -> list[Axis] | None:
    """The axes after a Reshape that splits an axis of channels, or merges neighbouring ones; None after any other
    Reshape.
    """
    if dims is None or result is None:
        return None
    found: list[Axis] = []
    rest = list(result)
    num_unproven = 0
    pairs = iter(zip(axes, (*axes[1:], None), dims, strict=True))
    for axis, after, dim in pairs:
        if isinstance(axis, str):
            if not rest:
                return None
            size = rest.pop(0)
            if size != dim and isinstance(size, int) and isinstance(dim, int):
                return None
            num_unproven += size is None or size != dim
            found.append(axis)
            continue
        both = _merged_axis(axis, after) if isinstance(after, Channels) else None
        if both is not None and rest and rest[0] == both.length:
            found.append(both)
            rest.pop(0)
            next(pairs)
            continue
        if axis.times > 1:
            if not rest or rest.pop(0) != axis.length:
                return None
            found.append(axis)
            continue
        sizes: list[int] = []
        while rest and isinstance(rest[0], int) and (not sizes or prod(sizes) < axis.size):
            sizes.append(rest[0])
            rest.pop(0)
        if prod(sizes) != axis.size or not sizes:
            return None
        found += [Channels(size, axis.stride * prod(sizes[position + 1 :])) for position, size in enumerate(sizes)]
    # A Reshape keeps the number of elements. So if all sizes but one are equal, that one is, too.
    return found if not rest and num_unproven <= 1 else None


def _merged_axis(axis: Channels, after: Channels) -> Channels | None:
    """The axis into which a Reshape merges two neighbouring axes of channels; None if they cannot be merged."""
    if axis.times == 1 and after.size == 1 and after.times > 1:
        return Channels(axis.size, axis.stride, after.times)
    is_row = axis.times == after.times == 1 and axis.size > 1 and after.size > 1
    return (
        Channels(axis.size * after.size, after.stride)
        if is_row and axis.stride == after.length * after.stride
        else None
    )


def _unsqueezed(index: Index, node: NodeProto, given: Heads) -> Heads | None:
    axes = index.ints(node, 1)
    if axes is None:
        return None
    rank = len(given.axes) + len(axes)
    added = {positive(axis, rank) for axis in axes}
    rest = iter(given.axes)
    return given.moved([Channels(1, 1) if axis in added else next(rest) for axis in range(rank)])


def _repeated(index: Index, node: NodeProto, given: Heads) -> Heads | None:
    """The heads in the result of an Expand along axes of one channel, whose operand has the heads `given`; None for any
    other Expand.
    """
    before, after = index.dims(node.input[0]), index.dims(node.output[0])
    if before is None or after is None or len(before) != len(after):
        return None
    axes: list[Axis] = []
    for axis, old, new in zip(given.axes, before, after, strict=True):
        if isinstance(axis, Channels) and axis.length == 1 and isinstance(new, int):
            axes.append(Channels(1, axis.stride, new))
        elif old is None or old != new:
            return None
        else:
            axes.append(axis)
    return given.moved(axes)


def _squeezed(index: Index, node: NodeProto, given: Heads) -> Heads | None:
    axes = index.ints(node, 1)
    if axes is None:
        return None
    dropped = {positive(axis, len(given.axes)) for axis in axes}
    if any(not isinstance(given.axes[axis], Channels) for axis in dropped):
        return None
    return given.moved([kept for axis, kept in enumerate(given.axes) if axis not in dropped])


def _selected(index: Index, node: NodeProto, name: str, given: Heads) -> Heads | None:
    """The heads in the result `name` of a Slice, Split or Gather along an axis of channels, whose operand has the heads
    `given`; None if it is along another axis.
    """
    found = _selected_range(index, node, name, len(given.axes))
    if found is None:
        return None
    axis, start, size = found
    channels = given.axes[axis]
    if not isinstance(channels, Channels) or channels.times > 1:
        return None
    start = start + channels.size if start < 0 else min(start, channels.size)
    axes = list(given.axes)
    if size is None:
        del axes[axis]
    else:
        axes[axis] = Channels(size, channels.stride)
    return given.moved(axes, offset=given.offset + start * channels.stride)


def _selected_range(index: Index, node: NodeProto, name: str, rank: int) -> tuple[int, int, int | None] | None:
    """The axis, start and size that a Slice, Split or Gather selects; the size is None if a Gather removes the axis.
    None if they are not known.
    """
    attributes = attributes_of(node)
    dims = index.dims(name)
    if node.op_type == "Gather":
        indices = index.constant(node.input[1])
        if indices is None or indices.ndim != 0:
            return None
        return positive(int(attributes.get("axis", 0)), rank), int(indices), None
    if dims is None or len(dims) != rank:
        return None
    if node.op_type == "Split":
        axis = positive(int(attributes.get("axis", 0)), rank)
        sizes = [(index.dims(each) or dims)[axis] for each in node.output]
        count = list(node.output).index(name)
        known = [size for size in sizes if isinstance(size, int)]
        return (axis, sum(known[:count]), known[count]) if len(known) == len(sizes) else None
    starts, axes = index.ints(node, 1), index.ints(node, 3)
    steps = index.ints(node, 4) if len(node.input) > 4 and node.input[4] else [1]
    if starts is None or len(starts) != 1 or steps != [1] or (axes is None and len(node.input) > 3 and node.input[3]):
        return None
    axis = positive(axes[0], rank) if axes else 0
    size = dims[axis]
    return (axis, starts[0], size) if isinstance(size, int) else None
