"""A pass that fuses a product with a weight and the addition of a bias into `linear`."""

from typing import Any

import numpy as np

from triune.coreml.lowering.context import dtype_of, is_weight
from triune.coreml.lowering.mb import Var, mb
from triune.coreml.lowering.passes.blocks import blocks_of, only_reader, replace
from triune.coreml.lowering.passes.mil_pass import MilPass

_MOST_AXES = 3
"""The largest rank of an operand that MIL's `linear` accepts."""


class FuseLinear(MilPass):
    """Replace a product with a constant matrix, plus a constant for each column, by linear with a bias.

    The product is a matmul, or a linear without a bias. This pass stands in for those of coremltools, which accept
    operands of any rank, and also fuse what is not equal: a bias that broadcasts the product to a larger shape, and
    bias - product as if it were product - bias.
    """

    name = "fuse_linear"

    def change(self, program: Any) -> None:
        """Fuse each product with its bias in `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                for op in list(block.operations):
                    if op.op_type in ("matmul", "linear"):
                        _fuse(block, op)


def _fuse(block: Any, op: Any) -> None:
    add = only_reader(op.outputs[0])
    if add is None or add.op_type != "add" or add.enclosing_block is not block:
        return
    weight = _weight(op)
    if weight is None:
        return
    other = add.y if add.x is op.outputs[0] else add.x
    bias = _bias(other, op.outputs[0].rank, weight.shape[0])
    if bias is None or bias.dtype != dtype_of(op.outputs[0]):
        return
    replace(block, add, mb.linear(x=op.x, weight=weight, bias=bias, name=add.outputs[0].name, before_op=add))
    block.remove_ops([op])


def _weight(op: Any) -> Any:
    """The weight, (N, K), of a product (..., K) -> (..., N); None if it is not a constant, or `op` has a bias."""
    if not 2 <= op.x.rank <= _MOST_AXES or is_weight(op.x):
        return None
    if op.op_type == "linear":
        has_bias = op.bias is not None and (op.bias.val is None or bool(np.any(op.bias.val)))
        return None if has_bias else op.weight
    if op.y.val is None or op.y.rank != 2 or op.transpose_x.val:
        return None
    return op.y.val if op.transpose_y.val else np.ascontiguousarray(op.y.val.T)


def _bias(value: Var, rank: int, num_columns: int) -> Any:
    """The bias as a vector with a number for each column; None if `value` is not a constant of that shape."""
    if value.val is None or not 1 <= value.rank <= rank:
        return None
    if tuple(value.shape) != (*([1] * (value.rank - 1)), num_columns):
        return None
    return value.val.reshape(num_columns)
