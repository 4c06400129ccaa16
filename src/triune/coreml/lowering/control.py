"""Lowering of If and Loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from triune.coreml.lowering.broadcast import as_vector, sizes_of
from triune.coreml.lowering.context import (
    Context,
    Lowering,
    Refusal,
    is_bool,
)
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.coreml.lowering.precision import in_fp32
from triune.coreml.lowering.shapes import to_scalar
from triune.graph.conversion.lowering.control import LoopParts, give_branch
from triune.graph.identities import behind_identities

_DTYPES: Mapping[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT32: np.int32,
    TensorProto.BOOL: np.int32,
}

MOST_UNROLLED_STEPS = 16
"""The largest trip count of a Loop that is unrolled, so that the shapes in each of its steps are known."""


def _if(c: Context) -> None:
    condition = to_scalar(c.input(0))
    if condition.val is not None:
        give_branch(c, is_true=bool(condition.val))
        return

    given: list[Sequence[Var]] = []

    def branch(graph: Any) -> Any:
        def build() -> list[Var]:
            given.append(c.lower_graph(graph, c.scope, {}))
            for name, *values in zip(c.node.output, *given, strict=True):
                _require_one_shape(name, values)
            # MIL requires that the results of a branch are computed in it, so a value from outside passes through an
            # identity. In fp32, the identity does not round a result that is computed in fp32.
            with in_fp32():
                return [mb.identity(x=value) for value in given[-1]]

        return build

    chosen, other = c.attributes["then_branch"], c.attributes["else_branch"]
    results = mb.cond(pred=condition, _true_fn=branch(chosen), _false_fn=branch(other))
    outputs: list[Var] = [results] if len(chosen.output) == 1 else list(results)
    for index, (value, *values) in enumerate(zip(outputs, *given, strict=True)):
        c.give(value if _have_one_shape(values) else _with_own_sizes(value), index)


def _with_own_sizes(value: Var) -> Var:
    """A copy of an If's result whose unknown sizes are equal to no other sizes of the program.

    coremltools declares the sizes of the first branch for the result, and would compute with these; the second branch
    may have other sizes.
    """
    sizes = mb.shape(x=value)
    sizes._sym_val = None
    ends = [is_fixed(size) for size in value.shape]
    return mb.slice_by_index(x=value, begin=[0] * value.rank, end=sizes, end_mask=ends)


def _have_one_shape(values: Sequence[Var]) -> bool:
    """Whether the sizes of all values are equal, known or not."""
    return len({tuple(str(size) for size in value.shape) for value in values}) == 1


def _require_one_shape(name: str, values: Sequence[Var]) -> None:
    """Raise Refusal if the branches of an If have different ranks for an output, or different known sizes."""
    first = values[0]
    for value in values[1:]:
        pairs = [] if value.rank != first.rank else list(zip(value.shape, first.shape, strict=True))
        # Two sizes that are not known count as equal: MIL writes each as ?.
        if value.rank != first.rank or any(
            bool(one != other) and (is_fixed(one) or is_fixed(other)) for one, other in pairs
        ):
            raise Refusal(
                f"its branches give '{name}' different shapes, {_shown(first)} and {_shown(value)}; Core ML "
                "needs the same shape from both: decide its condition by fixed sizes (--shape) or inputs "
                "(--constant), or pad or reshape one of them"
            )


def _shown(value: Var) -> str:
    """The shape of `value` for error messages, such as `[2, ?]`; ? is a size that is not known."""
    sizes: Sequence[object] = value.shape
    return f"[{', '.join(str(size) if is_fixed(size) else '?' for size in sizes)}]"


def _loop(c: Context) -> None:
    loop = LoopParts(c)
    if loop.limit is None or loop.limit > MOST_UNROLLED_STEPS or not _unroll(c, loop, loop.limit):
        _while(c, loop)


def _unroll(c: Context, loop: LoopParts[Var], steps: int) -> bool:
    """Write the body of a Loop once for each step, at most `steps` times.

    Returns:
        whether that was possible: False if the condition of a step is not a constant.
    """
    condition = c.input(1) if c.has(1) else mb.const(val=True)
    carried = loop.carried
    scanned: list[list[Var]] = [[] for _ in loop.scan_outputs]
    for step in range(steps):
        if condition.val is None:
            return False
        if not bool(np.all(condition.val)):
            break
        condition, carried, collected = loop.write_step(mb.const(val=np.int32(step)), condition, carried)
        for values, value in zip(scanned, collected, strict=True):
            values.append(value)
    loop.give_carried(carried)
    for index, values in enumerate(scanned, start=len(carried)):
        if c.wants(index):
            if not values:
                raise loop.no_steps()
            parts = [mb.expand_dims(x=value, axes=[0]) for value in values]
            c.give(mb.concat(values=parts, axis=0) if len(parts) > 1 else parts[0], index)
    return True


def _while(c: Context, loop: LoopParts[Var]) -> None:
    """Write a Loop as MIL's while_loop.

    The loop carries the step's number, the condition, the node's carried values, and a buffer for each scan output.
    """
    num_carried = len(loop.carried)
    last = to_scalar(c.input(0)) if c.has(0) else None
    going = to_scalar(c.input(1)) if c.has(1) else mb.const(val=True)
    most: Any = loop.limit
    if most is None and last is not None:
        most = mb.maximum(x=last, y=np.int32(1))
    shapes = [_row_shape(output) for output in loop.scan_outputs]
    if any(shape is None for shape in shapes):
        # The scan outputs have the shapes of the first iteration, which is computed once more before the loop.
        _, _, first = loop.write_step(mb.const(val=np.int32(0)), going, loop.carried)
        shapes = [sizes_of(value) for value in first]
    buffers = [_buffer(output, most, shape or []) for output, shape in zip(loop.scan_outputs, shapes, strict=True)]

    def continues(step: Var, is_going: Var, *_rest: Var) -> Var:
        return is_going if last is None else mb.logical_and(x=is_going, y=mb.less(x=step, y=last))

    def run(step: Var, is_going: Var, *rest: Var) -> Sequence[Var]:
        is_next, carried, collected = loop.write_step(step, is_going, rest)
        for before, after, given in zip(rest, carried, loop.body.input[2:], strict=False):
            if before.rank != after.rank:
                raise Refusal(
                    f"a step changes the shape of '{given.name}' from {_shown(before)} to {_shown(after)}; in Core "
                    "ML's loops a carried value keeps its rank: reshape it"
                )
        kept = [
            mb.scatter(
                data=buffer, indices=mb.expand_dims(x=step, axes=[0]), updates=_row(value), axis=0, mode="update"
            )
            for buffer, value in zip(rest[num_carried:], collected, strict=True)
        ]
        own = [mb.identity(x=value) for value in carried]
        return [mb.add(x=step, y=np.int32(1)), mb.identity(x=to_scalar(is_next)), *own, *kept]

    start = mb.const(val=np.int32(0))
    starts = [
        value if _is_handed_on(c, loop, place) else _without_number(value)
        for place, value in enumerate([going, *loop.carried])
    ]
    results = mb.while_loop(_cond=continues, _body=run, loop_vars=(start, *starts, *buffers))
    loop.give_carried(results[2:])
    for index, value in enumerate(results[2 + num_carried :], start=num_carried):
        if c.wants(index):
            c.give(_first_rows(value, results[0], is_bool=_is_bool_output(loop.body, index)), index)


def _is_handed_on(c: Context, loop: LoopParts[Var], place: int) -> bool:
    """Whether each iteration returns a value unchanged: the condition (0), or a carried value (1, 2, ...)."""
    name, maker = behind_identities(loop.body, loop.body.output[place].name)
    is_constant = maker is None and place == 0 and c.scope.tensor(name) is not None
    return is_constant or loop.hands_on(place)


def _without_number(value: Var) -> Var:
    """If the initial value of a loop's carried value is a constant, return a copy of it (an `identity` operation whose
    known value is erased), which coremltools treats as a computed value. Any other value is returned unchanged.

    coremltools takes a carried value of a loop for a constant if it begins as one and the first iteration does not
    change it. If the value changes in a later iteration, since another carried value has changed, coremltools refuses
    the loop.
    """
    if value.val is None:
        return value
    copy = mb.identity(x=value)
    copy._sym_val = None
    return copy


def _is_bool_output(body: Any, index: int) -> bool:
    return bool(body.output[1 + index].type.tensor_type.elem_type == TensorProto.BOOL)


def _row_shape(output: Any) -> list[int] | None:
    """The declared shape of an output of the body; None if a size is not declared."""
    kind = output.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return [int(dim.dim_value) for dim in kind.shape.dim]


def _buffer(output: Any, most: Any, shape: Sequence[Any]) -> Var:
    """Make a buffer of zeros for a scan output: one row for each of the `most` possible steps, each of shape `shape`.

    Raises:
        Refusal: `most` is None, or Core ML lacks the element type.
    """
    if most is None:
        raise Refusal(
            f"the Loop collects '{output.name}' of each step, and the number of steps has no limit; give the Loop a "
            "trip count"
        )
    kind = _DTYPES.get(output.type.tensor_type.elem_type)
    if kind is None:
        raise Refusal(f"the Loop collects '{output.name}' of each step, whose element type Core ML lacks; cast it")
    return mb.fill(shape=as_vector([most, *shape]), value=kind(0))


def _row(value: Var) -> Var:
    row = mb.cast(x=value, dtype="int32") if is_bool(value) else value
    return mb.expand_dims(x=row, axes=[0])


def _first_rows(buffer: Var, steps: Var, *, is_bool: bool) -> Var:
    """Return the first `steps` rows of a buffer, since later rows were never written. Convert them to bool if
    `is_bool`.
    """
    rest = sizes_of(buffer)[1:]
    end = as_vector([steps, *rest])
    cut = mb.slice_by_index(x=buffer, begin=[0] * buffer.rank, end=end)
    return mb.not_equal(x=cut, y=np.int32(0)) if is_bool else cut


TABLE: dict[str, Lowering] = {"If": _if, "Loop": _loop}
