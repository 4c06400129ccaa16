"""If and Loop, which read their conditions while the model runs."""

from collections.abc import Mapping

from onnx import GraphProto

from triune.metal.context import Context, Lowering, builder_of
from triune.metal.library import Value, mx

_MOST_PENDING = 64
"""The number of steps of a Loop after which MLX computes what it was told."""


def _if(c: Context) -> None:
    is_true = bool(c.known(0, "the condition of an If").reshape(-1)[0])
    branch: GraphProto = c.attributes["then_branch" if is_true else "else_branch"]
    for index, value in enumerate(c.lower_graph(branch, c.scope, {})):
        c.give(value, index)


def _loop(c: Context) -> None:
    body: GraphProto = c.attributes["body"]
    limit = int(c.known(0, "the limit of a Loop").reshape(-1)[0]) if c.has(0) else None
    goes_on = not c.has(1) or bool(c.known(1, "the condition of a Loop").reshape(-1)[0])
    carried = [c.input(index) for index in range(2, len(c.node.input))]
    rows: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    names, step = [value.name for value in body.input], 0
    while goes_on and (limit is None or step < limit):
        builder_of(c).require_short(step)
        given = [mx.array(step, dtype=mx.int64), mx.array(True), *carried]
        condition, *values = c.lower_graph(body, c.scope, dict(zip(names, given, strict=True)))
        carried = values[: len(carried)]
        for collected, value in zip(rows, values[len(carried) :], strict=True):
            collected.append(value)
        step += 1
        found = c.scope.known(condition)
        if found is None:
            raise ValueError("the condition of a Loop is computed while the model runs")
        goes_on = bool(found.reshape(-1)[0])
        if step % _MOST_PENDING == 0:
            mx.eval(carried)
    for index, value in enumerate(carried):
        c.give(value, index)
    for index, collected in enumerate(rows):
        c.give(mx.stack(collected) if collected else _no_rows(c, index, len(carried)), len(carried) + index)


def _no_rows(c: Context, index: int, num_carried: int) -> Value:
    """What a Loop of no steps collects: no rows of what the graph says that they are."""
    body: GraphProto = c.attributes["body"]
    kind = body.output[1 + num_carried + index].type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    return mx.zeros([0, *dims], dtype=builder_of(c).kind_of(kind.elem_type))


TABLE: Mapping[str, Lowering] = {"If": _if, "Loop": _loop}
