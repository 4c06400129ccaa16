"""Core AI's loop, whose values may have shapes that differ from step to step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ir, ops
from triune.coreai.lowering.dims import as_scalar, dims_of, element, expand, vector
from triune.coreai.lowering.values import axes, axis, cast, constant, dtype_of, is_bool, rank_of, shape_of, tensor_type
from triune.graph.conversion.problems import Refusal


def joined_type(one: Value, other: Value, what: str) -> Any:
    """The type of both; a Refusal, which says `what` they are, where there is none."""
    if dtype_of(one) != dtype_of(other) or rank_of(one) != rank_of(other):
        raise Refusal(f"{what} values of different types or ranks: {_shown(one)} and {_shown(other)}")
    dims = [size if size == more else None for size, more in zip(shape_of(one), shape_of(other), strict=True)]
    return tensor_type(dims, dtype_of(one))


def _shown(value: Value) -> str:
    """The type and shape: `float32[2, ?]`."""
    return f"{dtype_of(value)}[{', '.join('?' if size is None else str(size) for size in shape_of(value))}]"


def as_type(value: Value, kind: Any) -> Value:
    """`value` of a type that says less of its shape.

    By a slice to its end, which is computed so that nothing finds out before the model runs: what is known of a value
    is told to its type again when the program is rewritten, and loops and branches then contradict theirs.
    """
    rank = rank_of(value)
    if value.type == kind:
        return value
    one = element(cast(ops.get_shape(ops.non_zero(constant(np.ones(1, np.bool_)))), np.int32), 0)
    ends = [ops.mul(one, as_scalar(dim)) for dim in dims_of(value)]
    return dialect.SliceOp(value, axes([0] * rank), vector(ends), axes([1] * rank), results=[kind]).result


def with_row(buffer: Value, row: Value, step: Value) -> Value:
    """Write `row` at index `step` of the first axis of `buffer`."""
    sizes = dims_of(buffer)
    starts = vector([step, *([0] * (len(sizes) - 1))])
    ends = vector([ops.add(step, axis(1)), *sizes[1:]])
    return ops.slice_update(buffer, starts, ends, axes([1] * len(sizes)), expand(row, [0]))


def is_nested() -> bool:
    """Whether the operations that are written now are within a loop or a branch.

    There scatter_nd is not used: with it Apple's interpreter (1.0.0b3) loses other values of a loop.
    """
    return ir.InsertionPoint.current.block.owner.name != "coreai.graph"


def _copy(value: Value) -> Value:
    """Copy a value to memory of its own, as max(x, x), or as `x and x` for bool.

    Apple's interpreter (1.0.0b3) leaves a carried value of fixed shape where the step before has written it, and in a
    long step writes other values there before the last operation has read it. So a step first copies what is carried.
    """
    return ops.and_(value, value) if is_bool(value) else ops.maximum(value, value)


def loop(
    starts: Sequence[Value],
    go_on: Callable[..., Value],
    run: Callable[..., Sequence[Value]],
) -> list[Value]:
    """The number of steps done, and the values after the last step.

    Args:
        starts: the values before the first step.
        go_on: adds operations that tell of the step's number and the values, given one by one, whether there is a
            step: a scalar.
        run: adds operations that make of the same the values after a step. Called again where a shape turns out to
            change.
    """
    values = [axis(0), *starts]
    while True:
        kinds = [value.type for value in values]
        whole = dialect.WhileOp(kinds, values)
        with ir.InsertionPoint(whole.before.blocks[0]):
            # Copied first, as in a step: of a loop within a loop the condition is written over the first byte of what
            # is carried.
            arguments = [_copy(value) for value in whole.before.blocks[0].arguments]
            dialect.condition(go_on(*arguments), *arguments)
        with ir.InsertionPoint(whole.after.blocks[0]):
            arguments = list(whole.after.blocks[0].arguments)
            # First: Apple's interpreter (1.0.0b3) may have lost the number when it is read after other operations.
            following = ops.add(arguments[0], axis(1))
            copies = [_copy(value) for value in arguments]
            # What a step makes is copied again, for its place may be that of the step's number, which is then added to
            # it or read for it: (a, b) = (a + b, a) gave 5.0000005 for 5, and a Range 10, 1 for 10, 7.
            after = [following, *(_copy(new) for new in run(*copies))]
            wanted = [
                joined_type(value, new, "a step makes of what is carried")
                for value, new in zip(values, after, strict=True)
            ]
            if wanted == kinds:
                dialect.yield_([as_type(value, kind) for value, kind in zip(after, kinds, strict=True)])
                return list(whole.results)
        whole.operation.erase()
        values = [as_type(value, kind) for value, kind in zip(values, wanted, strict=True)]
