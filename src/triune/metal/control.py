"""If and Loop, which read their conditions while the model runs."""

from collections.abc import Mapping

from onnx import ValueInfoProto

from triune.graph.conversion.lowering.control import LoopParts, give_branch
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx

_MOST_PENDING = 64
"""MLX is lazy: have it compute what a Loop carries after every this many steps, so that the graph of pending operations
stays small.
"""


def _if(c: Context) -> None:
    give_branch(c, is_true=bool(c.known(0, "the condition of an If").reshape(-1)[0]))


def _loop(c: Context) -> None:
    loop = LoopParts(c)
    limit = int(c.known(0, "the limit of a Loop").reshape(-1)[0]) if c.has(0) else None
    goes_on = not c.has(1) or bool(c.known(1, "the condition of a Loop").reshape(-1)[0])
    carried = loop.carried
    rows: list[list[Value]] = [[] for _ in loop.scan_outputs]
    step = 0
    while goes_on and (limit is None or step < limit):
        builder_of(c).require_short(step)
        condition, carried, collected = loop.write_step(mx.array(step, dtype=mx.int64), mx.array(True), carried)
        for row, value in zip(rows, collected, strict=True):
            row.append(value)
        step += 1
        found = c.scope.known(condition)
        if found is None:
            raise ValueError("the condition of a Loop is computed while the model runs")
        goes_on = bool(found.reshape(-1)[0])
        if step % _MOST_PENDING == 0:
            mx.eval(carried)
    loop.give_carried(carried)
    for index, (row, output) in enumerate(zip(rows, loop.scan_outputs, strict=True), start=len(carried)):
        c.give(mx.stack(row) if row else _no_rows(c, output), index)


def _no_rows(c: Context, output: ValueInfoProto) -> Value:
    """The scan output of a Loop without iterations: no rows, with the shape that the graph declares."""
    kind = output.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    return mx.zeros([0, *dims], dtype=builder_of(c).kind_of(kind.elem_type))


TABLE: Mapping[str, Lowering] = {"If": _if, "Loop": _loop}
