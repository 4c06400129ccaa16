"""Lowering of If and Loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ir, ops
from triune.coreai.lowering.context import Context, Lowering
from triune.coreai.lowering.dims import Dim, cut, dims_of, expand, refined, scalar, spread
from triune.coreai.lowering.loops import as_type, common_type, loop, with_row
from triune.coreai.lowering.values import (
    cast,
    concat,
    constant,
    dtype_of,
    int32,
    is_bool,
    is_number,
    known_shape,
    shape_of,
)
from triune.graph.conversion.lowering.control import LoopParts, give_branch
from triune.graph.identities import behind_identities
from triune.graph.values import Values
from triune.graph.weight_files import array_of

MOST_STEPS_BUFFERED = 65_536
"""The largest number of steps for which a buffer of full length for a loop's scan outputs is created before the first
step.

With more steps, or an unknown number of them, the buffer grows by one row in each step.
"""

_REMEDY = "; decide its condition by fixed sizes (--shape) or inputs (--constant)"


class _Loop(LoopParts[Value]):
    """The parts of a Loop for Core AI. The results of a step get the sizes that the body declares."""

    def finished(self, results: Sequence[Value]) -> list[Value]:
        """Implements `LoopParts.finished`."""
        declared = Values(self.body)
        pairs = zip(results, self.body.output, strict=True)
        return [refined(value, declared.shape(output.name)) for value, output in pairs]


@dataclass(frozen=True, slots=True)
class _Row:
    """The shape and dtype of a scan output in each step."""

    shape: list[Dim]
    dtype: np.dtype[Any]


def _if(c: Context) -> None:
    known = c.constant(0)
    if known is not None:
        give_branch(c, is_true=bool(known.reshape(-1)[0]))
        return
    condition = scalar(c.input(0))
    # Write the branches into a draft first: the types of the results, which an If needs, are known only afterwards.
    draft = dialect.IfOp([], condition)
    blocks = [draft.thenRegion.blocks[0], draft.elseRegion.blocks[0]]
    found: list[list[Value]] = []
    for name, block in zip(("then_branch", "else_branch"), blocks, strict=True):
        with ir.InsertionPoint(block):
            found.append(c.lower_graph(c.attributes[name], c.scope, {}))
    pairs: dict[int, tuple[Value, ...]] = dict(enumerate(zip(*found, strict=True)))
    kinds = [common_type(one, other, "its branches give", _REMEDY) for one, other in pairs.values()]
    # If both results are computed outside the branches, Core AI replaces the If by an operation that it cannot load.
    # Write Where instead.
    for index, pair in list(pairs.items()):
        if known_shape(pair[0]) == known_shape(pair[1]) is not None and all(map(_is_made_outside, pair, blocks)):
            for value in pair:
                _move_out(value, draft)
            c.give(ops.broadcasting_where(condition, *pair), index)
            del pairs[index]
    wanted = [kinds[index] for index in pairs]
    whole = ir.Operation.create("coreai.if", results=wanted, operands=[condition], regions=2)
    for place, (block, region) in enumerate(zip(blocks, whole.regions, strict=True)):
        with ir.InsertionPoint(block):
            dialect.yield_([_in_branch(as_type(pair[place], kinds[index])) for index, pair in pairs.items()])
        block.append_to(region)
    draft.operation.erase()
    for index, value in zip(pairs, whole.results, strict=True):
        c.give(value, index)


def _in_branch(value: Value) -> Value:
    """Return `minimum(x, x)`, which equals x and is computed in the branch of x; for a bool, in int32.

    Core AI replaces an If if it finds that the results are computed outside both branches: for instance because two
    transposes undo each other, or an equal value was computed before. It does not simplify `minimum(x, x)`, but does
    simplify `or(x, x)`. A barrier, `maximum(x, x)`, cannot be used: an equal one may exist outside.
    """
    if is_bool(value):
        number = cast(value, np.int32)
        return cast(dialect.minimum(number, number), np.bool_)
    return dialect.minimum(value, value) if is_number(value) else value


def _is_made_outside(value: Value, block: Any) -> bool:
    """Whether `value` is an argument, a constant, or computed outside the branch `block`."""
    owner = value.owner
    return isinstance(owner, ir.Block) or owner.name == "coreai.constant" or owner.block != block


def _move_out(value: Value, branches: Any) -> None:
    """Move a constant of a branch to before the If; leave other values where they are."""
    owner = value.owner
    if not isinstance(owner, ir.Block) and owner.parent == branches.operation:
        owner.move_before(branches.operation)


def _loop(c: Context) -> None:
    """Lower Loop. It carries the step's number, the condition, the node's values, and a buffer for each scan output."""
    node = _Loop(c)
    num_carried = len(node.carried)
    last = scalar(c.input(0)) if c.has(0) else None
    going = scalar(c.input(1)) if c.has(1) else constant(np.bool_(True))
    most = None if node.limit is None or node.limit > MOST_STEPS_BUFFERED else node.limit
    if most == 0 and node.scan_outputs:
        raise node.no_steps()
    wanted = [index for index in range(len(node.scan_outputs)) if c.wants(num_carried + index)]
    buffers = [_Buffer(index, row, most) for index, row in zip(wanted, _collected_rows(node, wanted), strict=True)]

    def continues(step: Value, is_going: Value, *_rest: Value) -> Value:
        return is_going if last is None else ops.and_(is_going, ops.greater(last, step))

    def run(step: Value, is_going: Value, *rest: Value) -> Sequence[Value]:
        is_next, carried, collected = node.write_step(step, is_going, rest)
        kept = [
            buffer.with_row(value, collected[buffer.index], step)
            for buffer, value in zip(buffers, rest[num_carried:], strict=True)
        ]
        return [scalar(is_next), *carried, *kept]

    starts = [buffer.start() for buffer in buffers]
    results = loop([going, *node.carried, *starts], continues, run)
    node.give_carried(results[2:])
    is_whole = most is not None and _always_continues(c, node)
    for buffer, value in zip(buffers, results[2 + num_carried :], strict=True):
        c.give(value if is_whole else buffer.rows(value, results[0]), num_carried + buffer.index)


class _Buffer:
    """The buffer for a scan output: a row for each step.

    Attributes:
        index: the position of the output among the scan outputs.
    """

    def __init__(self, index: int, row: _Row, most: int | None) -> None:
        self.index = index
        self._row = row
        self._most = most

    def start(self) -> Value:
        """Make the buffer before the first step.

        If the number of steps is not known, the buffer begins with one row, since Core AI has no empty tensors; `rows`
        removes that row.
        """
        return spread(constant(np.zeros((), self._row.dtype)), [self._most or 1, *self._row.shape])

    def with_row(self, buffer: Value, value: Value, step: Value) -> Value:
        """Add the value of step number `step` to the buffer."""
        if self._most is None:
            return concat([buffer, expand(value, [0])], 0)
        return with_row(buffer, value, step)

    def rows(self, buffer: Value, steps: Value) -> Value:
        """The rows of the buffer after `steps` steps."""
        if self._most is None:
            return cut(buffer, 0, 1, np.iinfo(np.int32).max)
        return cut(buffer, 0, 0, steps)


def _collected_rows(node: _Loop, indices: Sequence[int]) -> list[_Row]:
    """Find the shapes and dtypes of some scan outputs: write a step into a draft, which is erased afterwards.

    If a size is known only at run time, the step is written before the loop, too: the results have the same sizes in
    each step.
    """
    if not indices:
        return []
    start = (int32(0), constant(np.bool_(True)), node.carried)
    draft = dialect.IfOp([], constant(np.bool_(True)))
    with ir.InsertionPoint(draft.thenRegion.blocks[0]):
        _, _, collected = node.write_step(*start)
        seen = [(shape_of(collected[index]), dtype_of(collected[index])) for index in indices]
    draft.operation.erase()
    if all(None not in shape for shape, _ in seen):
        return [_Row([size for size in shape if size is not None], dtype) for shape, dtype in seen]
    _, _, collected = node.write_step(*start)
    return [_Row(dims_of(collected[index]), dtype) for index, (_, dtype) in zip(indices, seen, strict=True)]


def _always_continues(c: Context, node: _Loop) -> bool:
    """Whether the condition of a Loop is known to be true before the first step and after each."""
    start = c.constant(1)
    if c.has(1) and (start is None or not start.all()):
        return False
    if node.hands_on(0):
        return True
    name, maker = behind_identities(node.body, node.body.output[0].name)
    own = {tensor.name: tensor for tensor in node.body.initializer}
    tensor = own.get(name) or (c.scope.tensor(name) if maker is None else None)
    return tensor is not None and bool(array_of(tensor).all())


TABLE: dict[str, Lowering] = {"If": _if, "Loop": _loop}
