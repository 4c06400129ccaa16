"""Rewrite subtractions of constants as additions."""

from typing import Any

import numpy as np

from triune.coreml.lowering.mb import mb


def add_negated_constants(block: Any) -> None:
    """Replace `x - constant` of floats by `x + -constant`, which rounds the same, in a block and all within it.

    coremltools 9 fuses a subtraction into the convolution before it (`fuse_conv_bias`) by negating the constant in
    place. Other readers of the constant then get it negated, and if the array is read-only, the conversion fails.
    """
    for op in list(block.operations):
        for inner in op.blocks:
            add_negated_constants(inner)
        constant = op.y.val if op.op_type == "sub" else None
        if constant is None or np.asarray(constant).dtype.kind != "f":
            continue
        with block:
            total = mb.add(x=op.x, y=np.negative(constant), name=op.name, before_op=op)
        # Copy the marks of the old operation, one of which says that it must compute in fp32.
        total.op.scopes = op.scopes
        block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=total)
        block.remove_ops([op])
