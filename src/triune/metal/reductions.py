"""ReduceMax and ReduceMin of booleans. All other reductions are those of `graph.conversion.lowering.reductions`."""

from collections.abc import Mapping

from triune.graph.axes import positive
from triune.graph.conversion.lowering import reductions
from triune.metal.context import Context, Lowering
from triune.metal.library import mx


def _extreme(c: Context) -> None:
    x = c.input(0)
    axes = [positive(each, x.ndim) for each in c.ints(1, "the axes of a reduction")] if c.has(1) else []
    if x.dtype != mx.bool_ or (not axes and c.attributes.get("noop_with_empty_axes", 0)):
        reductions.TABLE[c.node.op_type](c)
        return
    reduce = mx.any if c.node.op_type == "ReduceMax" else mx.all
    c.give(reduce(x, axis=axes or list(range(x.ndim)), keepdims=bool(c.attributes.get("keepdims", 1))))


TABLE: Mapping[str, Lowering] = {"ReduceMax": _extreme, "ReduceMin": _extreme}
