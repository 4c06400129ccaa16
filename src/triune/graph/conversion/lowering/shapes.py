"""Lowering of Shape, Transpose, Squeeze, Unsqueeze, Concat, Split, Tile and Trilu, and the sizes of Reshape."""

from collections.abc import Mapping

import numpy as np

from triune.graph.axes import positive
from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering.builder import Dim, Operand
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import EMPTY, V


def _shape(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    rank = b.rank(x)
    ends = (positive(int(c.attributes.get(name, default)), rank) for name, default in (("start", 0), ("end", rank)))
    start, end = (min(max(each, 0), rank) for each in ends)
    c.give(b.sizes(x, start, end) if start < end else EMPTY)


def _transpose(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    c.give(b.transpose(x, list(c.attributes.get("perm", range(b.rank(x) - 1, -1, -1)))))


def _squeeze(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    shape = b.shape(x)
    if c.has(1):
        axes = sorted({positive(each, len(shape)) for each in c.ints(1, "the axes to squeeze")})
    elif None in shape:
        raise Refusal("which dimensions are 1 is not known; give it axes, or give sizes with --shape")
    else:
        axes = [axis for axis, dim in enumerate(shape) if dim == 1]
    c.give(b.squeeze(x, axes))


def unsqueezed(c: NodeContext[V]) -> list[int]:
    """The axes that an Unsqueeze inserts, as non-negative axes of the result, sorted."""
    axes = c.ints(1, "the axes to unsqueeze")
    rank = c.builder.rank(c.input(0)) + len(axes)
    return sorted(positive(each, rank) for each in axes)


def reshape_sizes(c: NodeContext[V], library: str) -> tuple[list[int] | None, bool]:
    """The target sizes of a Reshape, and whether 0 among them means a size of 0 (`allowzero`).

    Args:
        c: the Reshape.
        library: the name of the target runtime for messages: "Core ML".

    Returns:
        the sizes, None if the model computes them at run time. Without `allowzero`, 0 keeps the size of the input.
    """
    wanted = c.constant(1)
    allows_zero = bool(c.attributes.get("allowzero", 0))
    sizes = None if wanted is None else [int(each) for each in wanted]
    if allows_zero and sizes is not None and 0 in sizes:
        raise Refusal(f"an empty result: {library} has no empty tensors")
    return sizes, allows_zero


def known_length(c: NodeContext[V], index: int, what: str) -> int:
    """The number of elements of an input, a vector. Raises Refusal if it is not known; `what` begins the message."""
    size = c.builder.shape(c.input(index))[0]
    if size is None:
        raise Refusal(f"{what} is computed while the model runs; fix it")
    return size


def fill_value(c: NodeContext[V]) -> np.generic:
    """The number that ConstantOfShape repeats, in the element type that programs use for it."""
    tensor = c.attributes.get("value")
    return np.float32(0) if tensor is None else c.scope.narrowed(tensor).reshape(-1)[0]


def _unsqueeze(c: NodeContext[V]) -> None:
    c.give(c.builder.unsqueeze(c.input(0), unsqueezed(c)))


def _concat(c: NodeContext[V]) -> None:
    b = c.builder
    values = [c.scope.value(name) for name in c.node.input if not c.scope.is_empty(name)]
    c.give(b.concat(values, positive(int(c.attributes["axis"]), b.rank(values[0]))) if values else EMPTY)


def _split(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    axis = positive(int(c.attributes.get("axis", 0)), b.rank(x))
    count = len(c.node.output)
    size = b.shape(x)[axis]
    if c.constant(1) is not None:
        sizes = c.ints(1, "the sizes of a split")
    elif not c.has(1) and size is not None:
        step = -(-size // int(c.attributes.get("num_outputs", count)))
        sizes = [min(step, size - step * index) for index in range(count)]
    else:
        _split_as_computed(c, x, axis)
        return
    kept = [each for each in sizes if each > 0]
    parts = iter(b.split(x, kept, axis) if len(kept) > 1 else [x])
    for index, each in enumerate(sizes):
        c.give(next(parts) if each > 0 else EMPTY, index)


def _split_as_computed(c: NodeContext[V], x: V, axis: int) -> None:
    """Lower a Split as slices, since the sizes of its outputs are computed at run time."""
    b, count = c.builder, len(c.node.output)
    if c.has(1):
        steps = [b.take(c.input(1), index) for index in range(count)]
    else:
        pieces = int(c.attributes.get("num_outputs", count))
        steps = [b.div(b.add(b.dim(x, axis), pieces - 1), pieces)] * count
    start: Dim[V] = 0
    for index, step in enumerate(steps):
        end = b.add(start, step)
        c.give(b.slice(x, axis, start, end), index)
        start = end


def _tile(c: NodeContext[V]) -> None:
    reps = c.constant(1)
    if reps is not None and (reps <= 0).any():
        raise Refusal(f"an empty result: {c.builder.runtime} has no empty tensors")
    c.give(c.builder.tile(c.input(0), c.input(1) if reps is None else [int(each) for each in reps]))


def trilu(c: NodeContext[V]) -> None:
    """Trilu, by comparing the indices of rows and columns.

    A product with a mask of 0 would turn infinities into NaN.
    """
    b, x = c.builder, c.input(0)
    rows, columns = (b.dim(x, axis) for axis in (b.rank(x) - 2, b.rank(x) - 1))
    known = c.constant(1) if c.has(1) else np.zeros((), np.int64)
    k: Operand[V] = b.reshape(c.input(1), []) if known is None else int(known.reshape(-1)[0])
    diagonal = b.sub(b.unsqueeze(b.iota(columns), [0]), b.unsqueeze(b.iota(rows), [1]))
    is_out = b.greater(k, diagonal) if c.attributes.get("upper", 1) else b.greater(diagonal, k)
    if b.is_bool(x):
        c.give(b.both(x, b.elementwise("Not", is_out)))
    else:
        c.give(b.where(is_out, 0, x))


TABLE: Mapping[str, Lowering] = {
    "Shape": _shape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Tile": _tile,
    "Trilu": trilu,
}
