"""Barriers between operations that Apple's compiler would combine to something else.

Core AI (1.0.0b3) combines constants as if all numbers were real: `(x * a) / b` becomes `x * (a / b)`, for integers too;
`(x + a) - b` becomes `x + (a - b)`; it drops one of two casts. This happens when a module's context is left and when a
program is loaded, and cannot be switched off. It does not see that `maximum(x, x)` equals x. So `maximum(x, x)`, a
barrier, is written between two operations where combining them would change the result. See decision 6.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ir
from triune.coreai.lowering.known import Known
from triune.coreai.lowering.reassociation import Operand, Step, changes_products, changes_scales, changes_sums
from triune.coreai.lowering.values import cast, dtype_of, is_bool, is_number

_SUMS = frozenset({"add", "sub"})
_PRODUCTS = frozenset({"mul", "divide"})
_CONVOLUTIONS = frozenset({"conv2d", "conv3d"})

# Operations that the compiler moves behind the next operation, or removes in pairs that undo each other.
_MOVED = frozenset({"reshape", "expand_dims", "shrink_dims", "broadcast_to", "broadcast_in_dims", "transpose"})
# Operations that the compiler removes if the result has the type of an operand.
_KEEPS_TYPE = frozenset({"slice", "concat", "pad", "tile"})


def place_barriers(body: Any) -> None:
    """Write a barrier between any two operations of a module that the compiler would replace by others with different
    results.

    Args:
        body: the body of the module. The module's MLIR context must still be entered.
    """
    known = Known()
    for operation in list(_operations(body)):
        name = name_of(operation)
        if name == "cast":
            places = [0] if _drops_cast(operation) else []
        elif name in _SUMS | _PRODUCTS and is_number(operation.results[0]):
            places = [place for place in (0, 1) if _reassociates(known, operation, place)]
        else:
            continue
        for place in places:
            value = operation.operands[place]
            with ir.InsertionPoint(operation), ir.Location.unknown():
                operation.operands[place] = dialect.maximum(value, value)


def place_all_barriers(body: Any) -> None:
    """Write a barrier after every operation, so that the compiler combines none.

    Such a program shows what one made with `place_barriers` should compute.

    Args:
        body: the body of the module, whose context must not have been left.
    """
    known = Known()
    for operation in list(_operations(body)):
        for value in operation.results:
            # Put no barrier after shapes and attributes: operations that read them require constants.
            if not is_number(value) or known.may_be_constant(value):
                continue
            with ir.InsertionPoint.after(operation), ir.Location.unknown():
                # Core AI removes and(x, x) and or(x, x), so the barrier of a bool is written for an int32.
                number = cast(value, np.int32) if is_bool(value) else value
                barrier = cast(dialect.maximum(number, number), dtype_of(value))
            value.replace_all_uses_except(barrier, number.owner if is_bool(value) else barrier.owner)


def name_of(operation: Any) -> str:
    """The name of an operation without its dialect: `mul` for `coreai.mul` and
    `coreai.decomposable.broadcasting_mul`.
    """
    return str(operation.operation.name).rsplit(".", 1)[-1].removeprefix("broadcasting_")


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for region in operation.operation.regions:
            for inner in region.blocks:
                yield from _operations(inner)


def _maker(value: Value, *moves: str) -> Any | None:
    """The operation that computes `value`, skipping operations that the compiler moves or removes and those named in
    `moves`; None for an argument.
    """
    while True:
        operation = value.owner
        if isinstance(operation, ir.Block):
            return None
        name = name_of(operation)
        if name in _MOVED or name in moves:
            value = operation.operands[0]
        elif name in _KEEPS_TYPE and any(each.type == value.type for each in operation.operands):
            value = next(each for each in operation.operands if each.type == value.type)
        else:
            return operation


def _drops_cast(operation: Any) -> bool:
    """Whether the compiler removes the cast whose result this cast reads, and so changes the result.

    In a chain of two casts, source to middle to last, it removes the first cast, unless middle has fewer bits than
    source and than last.
    """
    first = _maker(operation.operands[0])
    if first is None or name_of(first) != "cast":
        return False
    source, middle, last = (dtype_of(each) for each in (first.operands[0], first.results[0], operation.results[0]))
    # A cast between int32 and uint32 counts as exact: only sizes are cast so, and no size is beyond int32.
    is_size = {source, middle} == {np.dtype(np.int32), np.dtype(np.uint32)}
    is_exact = is_size or np.can_cast(source, middle, "safe")
    # A cast to fp32 before one to fp16 changes no result: fp32 represents every number of the types up to 16 bits, and
    # every integer up to 2^24. Larger integers are infinite in fp16 with both casts and with one.
    is_exact = is_exact or (middle.kind == last.kind == "f" and _bits(middle) > _bits(last))
    return not is_exact and _bits(middle) >= min(_bits(source), _bits(last))


def _bits(dtype: np.dtype[Any]) -> int:
    return 1 if dtype == np.bool_ else dtype.itemsize * 8


def _reassociates(known: Known, operation: Any, place: int) -> bool:
    """Whether the compiler merges the constants of this operation and of the one before it, and so changes the result.

    For example, it computes (x * a) / b as x * (a / b). There `operation` is the division, and `place` is 0.

    Args:
        known: the constants of the module.
        operation: a binary operation.
        place: the index of the operand that is not constant.
    """
    value, other = operation.operands[place], operation.operands[1 - place]
    if known.is_constant(value) or not known.may_be_constant(other):
        return False
    before = _maker(value, "cast")
    outer = Step(name_of(operation), Operand(known.numbers(other), is_right=place == 0))
    family = _SUMS if outer.name in _SUMS else _PRODUCTS
    dtype = dtype_of(operation.results[0])
    if before is None or not is_number(before.results[0]) or dtype_of(before.results[0]) != dtype:
        return False
    if name_of(before) == "neg":
        # The compiler turns -x * b into x * -b. That is exact, unless b is a subnormal constant of fp16, which it
        # misreads.
        negation = Step("mul", Operand(np.array([-1.0]), is_right=True))
        return family is _PRODUCTS and dtype == np.float16 and changes_products(negation, outer, dtype)
    if name_of(before) in family:
        side = next((side for side in (1, 0) if known.may_be_constant(before.operands[side])), None)
        if side is None:
            return False
        inner = Step(name_of(before), Operand(known.numbers(before.operands[side]), is_right=side == 1))
        if family is _PRODUCTS:
            return changes_products(inner, outer, dtype)
        made = _maker(before.operands[1 - side])
        return changes_sums(inner, outer, dtype, is_bias=made is not None and name_of(made) in _CONVOLUTIONS)
    return family is _PRODUCTS and _is_convolved(known, before) and changes_scales(outer, dtype)


def _is_convolved(known: Known, operation: Any) -> bool:
    """Whether `operation` is a convolution with constant weights, or adds a constant bias to one.

    The compiler multiplies such weights by a constant factor that comes after the convolution.
    """
    if name_of(operation) == "add":
        sides = [side for side in (1, 0) if known.is_constant(operation.operands[side])]
        operation = _maker(operation.operands[1 - sides[0]]) if sides else None
    return operation is not None and name_of(operation) in _CONVOLUTIONS and known.is_constant(operation.operands[1])
