"""Core AI's loop, extended to values whose shapes differ from step to step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ir, ops
from triune.coreai.lowering.dims import as_scalar, dims_of, element, expand, vector
from triune.coreai.lowering.values import (
    cast,
    constant,
    dtype_of,
    int32,
    int32s,
    is_bool,
    rank_of,
    shape_of,
    tensor_type,
)
from triune.graph.conversion.problems import Refusal


def common_type(one: Value, other: Value, what: str, remedy: str = "") -> Any:
    """The type that both values fit: a size in which they differ is unknown.

    Raises:
        Refusal: the values have different dtypes or ranks; `what` begins the message, `remedy` ends it.
    """
    if dtype_of(one) != dtype_of(other) or rank_of(one) != rank_of(other):
        raise Refusal(f"{what} values of different types or ranks: {_shown(one)} and {_shown(other)}{remedy}")
    dims = [size if size == more else None for size, more in zip(shape_of(one), shape_of(other), strict=True)]
    return tensor_type(dims, dtype_of(one))


def _shown(value: Value) -> str:
    """The dtype and shape of a value for messages, such as `float32[2, ?]`."""
    return f"{dtype_of(value)}[{', '.join('?' if size is None else str(size) for size in shape_of(value))}]"


def as_type(value: Value, kind: Any) -> Value:
    """Return `value` with the type `kind`, in which fewer sizes are known.

    It is written as a slice of the whole value with an end that is computed at run time. With a constant end, Core AI
    would infer the sizes again when it rewrites the program, and the type would contradict the type of the loop or
    branch.
    """
    rank = rank_of(value)
    if value.type == kind:
        return value
    one = element(cast(ops.get_shape(ops.non_zero(constant(np.ones(1, np.bool_)))), np.int32), 0)
    ends = [ops.mul(one, as_scalar(dim)) for dim in dims_of(value)]
    return dialect.SliceOp(value, int32s([0] * rank), vector(ends), int32s([1] * rank), results=[kind]).result


def with_row(buffer: Value, row: Value, step: Value) -> Value:
    """Write `row` at index `step` of the first axis of `buffer`."""
    sizes = dims_of(buffer)
    starts = vector([step, *([0] * (len(sizes) - 1))])
    ends = vector([ops.add(step, int32(1)), *sizes[1:]])
    return ops.slice_update(buffer, starts, ends, int32s([1] * len(sizes)), expand(row, [0]))


def is_nested() -> bool:
    """Whether operations are currently written into a loop or a branch.

    scatter_nd must not be used there: Apple's interpreter (1.0.0b3) then loses other values of a loop.
    """
    return ir.InsertionPoint.current.block.owner.name != "coreai.graph"


def _copy(value: Value) -> Value:
    """Copy a value to other memory, as maximum(x, x).

    A bool is copied as an int32, since Core AI replaces and(x, x) by x.

    Apple's interpreter (1.0.0b3) keeps a carried value of fixed shape in the memory where the previous step wrote it.
    In a long step it writes other values there before the last operation has read the carried one. So each step first
    copies the carried values.
    """
    number = cast(value, np.int32) if is_bool(value) else value
    return cast(ops.maximum(number, number), dtype_of(value))


def loop(
    starts: Sequence[Value],
    continues: Callable[..., Value],
    run: Callable[..., Sequence[Value]],
) -> list[Value]:
    """Write a loop.

    Args:
        starts: the values before the first step.
        continues: writes operations that compute whether there is another step, a bool scalar. Its arguments are the
            number of the step and each value.
        run: writes operations that compute the values after a step. It has the same arguments, and is called again if
            the shape of a value changes in a step.

    Returns:
        the number of steps, and the values after the last one.
    """
    values = [int32(0), *starts]
    while True:
        kinds = [value.type for value in values]
        whole = dialect.WhileOp(kinds, values)
        with ir.InsertionPoint(whole.before.blocks[0]):
            # Copy the values first, as in a step: in a loop within a loop the interpreter writes the condition over the
            # first byte of a carried value.
            arguments = [_copy(value) for value in whole.before.blocks[0].arguments]
            dialect.condition(continues(*arguments), *arguments)
        with ir.InsertionPoint(whole.after.blocks[0]):
            arguments = list(whole.after.blocks[0].arguments)
            # Compute the next step's number first: after other operations, Apple's interpreter (1.0.0b3) may have
            # lost the number of this step.
            following = ops.add(arguments[0], int32(1))
            copies = [_copy(value) for value in arguments]
            # Copy the results again, since one may share memory with the step's number: (a, b) = (a + b, a) gave
            # 5.0000005 instead of 5, and a Range gave 10, 1 instead of 10, 7.
            after = [following, *(_copy(new) for new in run(*copies))]
            wanted = [
                common_type(value, new, "a step makes of what is carried")
                for value, new in zip(values, after, strict=True)
            ]
            if wanted == kinds:
                dialect.yield_([as_type(value, kind) for value, kind in zip(after, kinds, strict=True)])
                return list(whole.results)
        whole.operation.erase()
        values = [as_type(value, kind) for value, kind in zip(values, wanted, strict=True)]
