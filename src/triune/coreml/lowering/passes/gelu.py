"""A pass that fuses the operations of Gelu into one."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from triune.coreml.lowering.context import is_float
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.passes.blocks import blocks_of, only_reader, replace
from triune.coreml.lowering.passes.mil_pass import MilPass

_NEAR = 1e-6
"""The relative tolerance for constants of the pattern: the rounding of fp32."""


class FuseGelu(MilPass):
    """Replace x * 0.5 * (1 + erf(x / sqrt(2))), with its factors in any order, by gelu.

    The approximation by tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)) in place of erf is replaced, too. coremltools'
    passes also accept constants that differ from these by up to 0.001.
    """

    name = "fuse_gelu"

    def change(self, program: Any) -> None:
        """Fuse each Gelu of `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                for op in list(block.operations):
                    if op.op_type in ("erf", "tanh"):
                        _fuse(block, op)


def _fuse(block: Any, op: Any) -> None:
    sum_ = only_reader(op.outputs[0])
    if sum_ is None or sum_.op_type != "add" or not _is_number(_other(sum_, op.outputs[0]), 1.0):
        return
    roots = _erf_roots(op.x) if op.op_type == "erf" else _tanh_roots(op.x)
    for x in roots:
        end = _product(sum_, x) if is_float(x) and tuple(x.shape) == tuple(op.x.shape) else None
        if end is not None and end.enclosing_block is block:
            mode = "EXACT" if op.op_type == "erf" else "TANH_APPROXIMATION"
            replace(block, end, mb.gelu(x=x, mode=mode, name=end.outputs[0].name, before_op=end))
            return


def _erf_roots(value: Var) -> Iterator[Var]:
    """Yield each x with `value` = x / sqrt(2), the argument of erf."""
    yield from _factors(value, 1 / math.sqrt(2))
    op = value.op
    if op is not None and op.op_type == "real_div" and _is_number(op.y, math.sqrt(2)):
        yield op.x


def _tanh_roots(value: Var) -> Iterator[Var]:
    """Yield each x with `value` = sqrt(2 / pi) * (x + 0.044715 * x ** 3), the argument of tanh."""
    for inner in _factors(value, math.sqrt(2 / math.pi)):
        if inner.op is not None and inner.op.op_type == "add":
            for x, cubed in ((inner.op.x, inner.op.y), (inner.op.y, inner.op.x)):
                if any(_is_cube(each, x) for each in _factors(cubed, 0.044715)):
                    yield x


def _is_cube(value: Var, x: Var) -> bool:
    op = value.op
    if op is None:
        return False
    if op.op_type == "pow":
        return op.x is x and _is_number(op.y, 3.0)
    squared = _other(op, x) if op.op_type == "mul" and x in (op.x, op.y) else None
    inner = None if squared is None else squared.op
    return inner is not None and inner.op_type == "mul" and inner.x is x and inner.y is x


def _product(sum_: Any, x: Var) -> Any:
    """The operation that computes `sum_` * x * 0.5 in any order; None if there is none."""
    first_product = only_reader(sum_.outputs[0])
    if first_product is None or first_product.op_type != "mul":
        return None
    other = _other(first_product, sum_.outputs[0])
    if any(each is x for each in _factors(other, 0.5)):
        return first_product
    second_product = only_reader(first_product.outputs[0])
    if second_product is None or second_product.op_type != "mul":
        return None
    rest = _other(second_product, first_product.outputs[0])
    is_complete = (other is x and _is_number(rest, 0.5)) or (rest is x and _is_number(other, 0.5))
    return second_product if is_complete else None


def _factors(value: Var, number: float) -> Iterator[Var]:
    """Yield y if `value` is the product y * `number`."""
    op = value.op
    if op is not None and op.op_type == "mul":
        if _is_number(op.y, number):
            yield op.x
        if _is_number(op.x, number):
            yield op.y


def _other(op: Any, value: Var) -> Var:
    return op.y if op.x is value else op.x


def _is_number(value: Var, number: float) -> bool:
    return value.val is not None and value.rank == 0 and bool(np.isclose(float(value.val), number, rtol=_NEAR, atol=0))
