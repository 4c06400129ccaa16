"""Barriers between operations that Apple's compiler would join wrongly.

Core AI (1.0.0b3) joins neighbouring operations by the rules of real numbers: `(x * a) / b` becomes `x * (a / b)`, for
whole numbers too; `(x + a) - b` becomes `x + (a - b)`; of two casts one is dropped. It does so when the context
of a module is left and when a program is loaded, and has no option to switch that off. It does not look through
`maximum(x, x)`, which equals `x`. So `maximum(x, x)` is written between two operations that would be joined wrongly.
See decision 6.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from triune.coreai.library import Value, dialect, ir
from triune.coreai.lowering.joined import Operand, Step, changes_products, changes_scales, changes_sums
from triune.coreai.lowering.known import Known
from triune.coreai.lowering.values import dtype_of, is_bool, is_number

_SUMS = frozenset({"add", "sub"})
_PRODUCTS = frozenset({"mul", "divide"})
_CONVOLUTIONS = frozenset({"conv2d", "conv3d"})

# Operations that the compiler moves behind the operation that reads them, or drops in pairs.
_MOVES = frozenset({"reshape", "expand_dims", "shrink_dims", "broadcast_to", "broadcast_in_dims", "transpose"})
# Operations that the compiler drops where the type of the result is that of an operand.
_PARTS = frozenset({"slice", "concat", "pad", "tile"})


def place_barriers(body: Any) -> None:
    """Write a barrier wherever the compiler would join two operations of a module and change the answer.

    Args:
        body: the module's body, before the module's context is left.
    """
    known = Known()
    for operation in list(_operations(body)):
        name = name_of(operation)
        if name == "cast":
            places = [0] if _drops_cast(operation) else []
        elif name in _SUMS | _PRODUCTS and is_number(operation.results[0]):
            places = [place for place in (0, 1) if _joins(known, operation, place)]
        else:
            continue
        for place in places:
            value = operation.operands[place]
            with ir.InsertionPoint(operation), ir.Location.unknown():
                operation.operands[place] = dialect.maximum(value, value)


def place_all_barriers(body: Any) -> None:
    """Write a barrier after every operation, so that the compiler joins none.

    A program made so is the reference for one made with `place_barriers`.

    Args:
        body: the module's body, before the module's context is left.
    """
    known = Known()
    for operation in list(_operations(body)):
        for value in operation.results:
            # Shapes and settings must be constant where they are read.
            if not is_number(value) or known.may_be_constant(value):
                continue
            with ir.InsertionPoint.after(operation), ir.Location.unknown():
                barrier = dialect.and_(value, value) if is_bool(value) else dialect.maximum(value, value)
            value.replace_all_uses_except(barrier, barrier.owner)


def name_of(operation: Any) -> str:
    """An operation's name without its dialect: `mul` for `coreai.mul` and `coreai.decomposable.broadcasting_mul`."""
    return str(operation.operation.name).rsplit(".", 1)[-1].removeprefix("broadcasting_")


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for region in operation.operation.regions:
            for inner in region.blocks:
                yield from _operations(inner)


def _before(value: Value, *moves: str) -> Any | None:
    """The operation that made `value`; None for an argument.

    Operations that the compiler moves or drops, and those named in `moves`, are passed over.
    """
    while True:
        operation = value.owner
        if isinstance(operation, ir.Block):
            return None
        name = name_of(operation)
        if name in _MOVES or name in moves:
            value = operation.operands[0]
        elif name in _PARTS and any(each.type == value.type for each in operation.operands):
            value = next(each for each in operation.operands if each.type == value.type)
        else:
            return operation


def _drops_cast(operation: Any) -> bool:
    """Whether the compiler drops a cast before this cast although that changes numbers.

    The compiler drops the first of two casts, unless its result has fewer bits than both its operand and the result
    of the second.
    """
    first = _before(operation.operands[0])
    if first is None or name_of(first) != "cast":
        return False
    source, middle, last = (dtype_of(each) for each in (first.operands[0], first.results[0], operation.results[0]))
    # Sizes are cast from uint32 to int32 and back, and none of them is large enough for that to matter.
    is_size = {source, middle} == {np.dtype(np.int32), np.dtype(np.uint32)}
    is_exact = is_size or np.can_cast(source, middle, "safe")
    # A float with more bits than the last float rounds away nothing that the last float keeps.
    is_exact = is_exact or (middle.kind == last.kind == "f" and _bits(middle) > _bits(last))
    return not is_exact and _bits(middle) >= min(_bits(source), _bits(last))


def _bits(dtype: np.dtype[Any]) -> int:
    return 1 if dtype == np.bool_ else dtype.itemsize * 8


def _joins(known: Known, operation: Any, place: int) -> bool:
    """Whether the compiler joins the constant in the operand at `place` with the other operand and changes numbers."""
    value, other = operation.operands[place], operation.operands[1 - place]
    if known.is_constant(value) or not known.may_be_constant(other):
        return False
    before = _before(value, "cast")
    outer = Step(name_of(operation), Operand(known.numbers(other), is_right=place == 0))
    family = _SUMS if outer.name in _SUMS else _PRODUCTS
    dtype = dtype_of(operation.results[0])
    if before is None or not is_number(before.results[0]) or dtype_of(before.results[0]) != dtype:
        return False
    if name_of(before) == "neg":
        # The compiler negates the factor, which only in fp16 it may misread.
        negation = Step("mul", Operand(np.array([-1.0]), is_right=True))
        return family is _PRODUCTS and dtype == np.float16 and changes_products(negation, outer, dtype)
    if name_of(before) in family:
        side = next((side for side in (1, 0) if known.may_be_constant(before.operands[side])), None)
        if side is None:
            return False
        inner = Step(name_of(before), Operand(known.numbers(before.operands[side]), is_right=side == 1))
        if family is _PRODUCTS:
            return changes_products(inner, outer, dtype)
        made = _before(before.operands[1 - side])
        return changes_sums(inner, outer, dtype, is_bias=made is not None and name_of(made) in _CONVOLUTIONS)
    return family is _PRODUCTS and _is_convolved(known, before) and changes_scales(outer, dtype)


def _is_convolved(known: Known, operation: Any) -> bool:
    """Whether `operation` is a convolution by constant weights, or the addition of a constant bias to one.

    The compiler multiplies such weights by a scale that follows.
    """
    if name_of(operation) == "add":
        sides = [side for side in (1, 0) if known.is_constant(operation.operands[side])]
        operation = _before(operation.operands[1 - sides[0]]) if sides else None
    return operation is not None and name_of(operation) in _CONVOLUTIONS and known.is_constant(operation.operands[1])
