"""Lowering of ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ArgMax and ArgMin."""

from collections.abc import Mapping

from triune.graph.axes import positive
from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.scope import V

_SUMS = ("ReduceSum", "ReduceMean")


def reduced_axes(c: NodeContext[V], x: V) -> list[int]:
    """The axes to reduce; [] if the node reduces none."""
    rank = c.builder.rank(x)
    if c.has(1):
        axes = [positive(each, rank) for each in c.ints(1, "the axes of a reduction")]
        if axes:
            return axes
    return [] if c.attributes.get("noop_with_empty_axes", 0) else list(range(rank))


def reduce(c: NodeContext[V]) -> None:
    """Lower ReduceSum, ReduceMean, ReduceMax, ReduceMin or ReduceProd."""
    b, op, x = c.builder, c.node.op_type, c.input(0)
    axes = reduced_axes(c, x)
    keepdims = bool(c.attributes.get("keepdims", 1))
    if not axes:
        c.give(x)
    elif op == "ReduceMean" and not b.is_float(x):
        total = b.reduce("ReduceSum", x, axes, keepdims=keepdims)
        count = b.product([b.dim(x, axis) for axis in axes])
        c.give(b.div(total, count))
    else:
        # Booleans become 0 and 1.
        numbers = b.cast(x, "int32") if b.is_bool(x) else b.summable(x) if op in _SUMS else x
        c.give(b.cast(b.reduce(op, numbers, axes, keepdims=keepdims), b.dtype(x)))


def _arg(c: NodeContext[V]) -> None:
    b, op, x = c.builder, c.node.op_type, c.input(0)
    x = b.cast(x, "int32") if b.is_bool(x) else x
    axis = positive(int(c.attributes.get("axis", 0)), b.rank(x))
    keepdims = bool(c.attributes.get("keepdims", 1))
    if not c.attributes.get("select_last_index", 0):
        c.give(b.arg(op, x, axis, keepdims=keepdims))
        return
    # The last index is the first one of the reversed axis.
    index = b.arg(op, b.reverse(x, axis), axis, keepdims=keepdims)
    size = b.dim(x, axis)
    c.give(b.sub(size - 1 if isinstance(size, int) else b.sub(size, 1), index))


TABLE: Mapping[str, Lowering] = {
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"], reduce),
    **dict.fromkeys(["ArgMax", "ArgMin"], _arg),
}
