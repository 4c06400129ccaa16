"""Lowering of If and Loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto

from triune.coreai.library import Value, dialect, ir, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import cut, expand, refined, scalar
from triune.coreai.lowering.loops import as_type, joined_type, loop, with_row
from triune.coreai.lowering.values import axis, concat, constant, dtype_of, is_bool, is_number, known_shape, shape_of
from triune.graph.conversion.problems import Refusal
from triune.graph.values import Values
from triune.graph.weight_files import array_of

MOST_STEPS_BUFFERED = 65_536
"""The most steps for which a loop's collected values get a buffer of full length before the first step.

With more steps, or an unknown number of them, the buffer grows by one row in each step.
"""


def _written(c: Context, body: GraphProto, given: Sequence[Value]) -> list[Value]:
    """Write the body of a loop into the current block; return its results, with the shapes that the body declares."""
    names = [value.name for value in body.input]
    values = c.lower_graph(body, c.scope, dict(zip(names, given, strict=True)))
    declared = Values(body)
    return [refined(value, declared.shape(output.name)) for value, output in zip(values, body.output, strict=True)]


@dataclass(frozen=True, slots=True)
class _Row:
    """The shape and dtype of a value that a loop collects in each step."""

    shape: list[int]
    dtype: np.dtype[Any]


def _if(c: Context) -> None:
    graphs = [c.attributes[name] for name in ("then_branch", "else_branch")]
    known = c.constant(0)
    if known is not None:
        for index, value in enumerate(c.lower_graph(graphs[not known.reshape(-1)[0]], c.scope, {})):
            c.give(value, index)
        return
    condition = scalar(c.input(0))
    # The types of the results are known only after the branches are written, so they are written into a draft first.
    draft = dialect.IfOp([], condition)
    blocks = [draft.thenRegion.blocks[0], draft.elseRegion.blocks[0]]
    found: list[list[Value]] = []
    for graph, block in zip(graphs, blocks, strict=True):
        with ir.InsertionPoint(block):
            found.append(c.lower_graph(graph, c.scope, {}))
    pairs: dict[int, tuple[Value, ...]] = dict(enumerate(zip(*found, strict=True)))
    kinds = [joined_type(one, other, "its branches give") for one, other in pairs.values()]
    # If both results are computed outside the branches, Core AI turns the If into a selection that it cannot load.
    for index, pair in list(pairs.items()):
        if known_shape(pair[0]) == known_shape(pair[1]) is not None and all(map(_is_ready, pair, blocks)):
            for value in pair:
                _move_out(value, draft)
            c.give(ops.broadcasting_where(condition, *pair), index)
            del pairs[index]
    wanted = [kinds[index] for index in pairs]
    whole = ir.Operation.create("coreai.if", results=wanted, operands=[condition], regions=2)
    for place, (block, region) in enumerate(zip(blocks, whole.regions, strict=True)):
        with ir.InsertionPoint(block):
            dialect.yield_([_kept(as_type(pair[place], kinds[index])) for index, pair in pairs.items()])
        block.append_to(region)
    draft.operation.erase()
    for index, value in zip(pairs, whole.results, strict=True):
        c.give(value, index)


def _kept(value: Value) -> Value:
    """Return `value` as the result of an operation that stays in its branch: `minimum(x, x)`.

    Core AI turns an If into a selection if it finds the results to be computed outside both branches: two transposes
    undo each other, or the same was computed before. It leaves `minimum(x, x)` alone. Barriers, which it might find
    outside, are `maximum(x, x)`.
    """
    if is_bool(value):
        return dialect.or_(value, value)
    return dialect.minimum(value, value) if is_number(value) else value


def _is_ready(value: Value, block: Any) -> bool:
    """Whether `value` is an argument, a constant, or computed outside the branch `block`."""
    owner = value.owner
    return isinstance(owner, ir.Block) or owner.name == "coreai.constant" or owner.block != block


def _move_out(value: Value, branches: Any) -> None:
    """Move a constant that was made in a branch in front of the If; leave any other value where it is."""
    owner = value.owner
    if not isinstance(owner, ir.Block) and owner.parent == branches.operation:
        owner.move_before(branches.operation)


def _loop(c: Context) -> None:
    """Lower Loop.

    The loop carries the step's number, the condition, the node's carried values, and a buffer for each collected value.
    """
    body: GraphProto = c.attributes["body"]
    num_carried = len(c.node.input) - 2
    limit = c.constant(0)
    last = scalar(c.input(0)) if c.has(0) else None
    going = scalar(c.input(1)) if c.has(1) else constant(np.bool_(True))
    carried = [c.input(2 + index) for index in range(num_carried)]
    most = None if limit is None else int(limit.reshape(-1)[0])
    if most is not None and most > MOST_STEPS_BUFFERED:
        most = None
    if most == 0 and len(body.output) > 1 + num_carried:
        raise Refusal("a loop of no steps gives empty results; Core AI has no empty tensors")
    wanted = [place for place in range(num_carried, len(body.output) - 1) if c.wants(place)]
    buffers = [_Buffer(place, row, most) for place, row in zip(wanted, _rows(c, body, wanted), strict=True)]

    def go_on(step: Value, is_going: Value, *_rest: Value) -> Value:
        return is_going if last is None else ops.and_(is_going, ops.greater(last, step))

    def run(step: Value, is_going: Value, *rest: Value) -> Sequence[Value]:
        given = [step, is_going, *rest[:num_carried]]
        results = _written(c, body, given)
        kept = [
            buffer.with_row(value, results[1 + buffer.place], step)
            for buffer, value in zip(buffers, rest[num_carried:], strict=True)
        ]
        return [scalar(results[0]), *results[1 : 1 + num_carried], *kept]

    starts = [buffer.start() for buffer in buffers]
    results = loop([going, *carried, *starts], go_on, run)
    for index, value in enumerate(results[2 : 2 + num_carried]):
        c.give(value, index)
    is_whole = most is not None and _always_goes_on(c, body)
    for buffer, value in zip(buffers, results[2 + num_carried :], strict=True):
        c.give(value if is_whole else buffer.filled(value, results[0]), buffer.place)


class _Buffer:
    """The buffer of one collected value of a loop: a row for each step."""

    def __init__(self, place: int, row: _Row, most: int | None) -> None:
        self.place = place
        self._row = row
        self._most = most

    def start(self) -> Value:
        """The buffer before the first step.

        One that grows begins with a row that `filled` drops, since Core AI has no empty tensors.
        """
        return constant(np.zeros([self._most or 1, *self._row.shape], self._row.dtype))

    def with_row(self, buffer: Value, value: Value, step: Value) -> Value:
        """The buffer with the value of step number `step` added."""
        if self._most is None:
            return concat([buffer, expand(value, [0])], 0)
        return with_row(buffer, value, step)

    def filled(self, buffer: Value, steps: Value) -> Value:
        """The rows that were written, given the number of steps that were done."""
        if self._most is None:
            return cut(buffer, 0, 1, np.iinfo(np.int32).max)
        return cut(buffer, 0, 0, steps)


def _rows(c: Context, body: GraphProto, places: Sequence[int]) -> list[_Row]:
    """The shapes and dtypes of collected values, found by writing the body once into a draft, which is then erased."""
    if not places:
        return []
    given = [axis(0), constant(np.bool_(True)), *(c.input(place) for place in range(2, len(c.node.input)))]
    draft = dialect.IfOp([], constant(np.bool_(True)))
    with ir.InsertionPoint(draft.thenRegion.blocks[0]):
        values = _written(c, body, given)
        seen = [(shape_of(values[1 + place]), dtype_of(values[1 + place])) for place in places]
    draft.operation.erase()
    rows: list[_Row] = []
    for place, (shape, dtype) in zip(places, seen, strict=True):
        sizes = [size for size in shape if size is not None]
        if len(sizes) < len(shape):
            name = body.output[1 + place].name
            raise Refusal(f"'{name}' of each step is collected, but its shape is not fixed; give fixed shapes")
        rows.append(_Row(sizes, dtype))
    return rows


def _always_goes_on(c: Context, body: GraphProto) -> bool:
    """Whether the loop's condition is known to be true before the first step and after each step."""
    start = c.constant(1)
    if c.has(1) and (start is None or not start.all()):
        return False
    name = body.output[0].name
    makers = {output: node for node in body.node for output in node.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    if name == body.input[1].name:
        return True
    own = {tensor.name: tensor for tensor in body.initializer}
    tensor = own.get(name) or (None if name in makers else c.scope.tensor(name))
    return tensor is not None and bool(array_of(tensor).all())


TABLE: dict[str, Lowering] = {"If": _if, "Loop": _loop}
