"""Subtractions of constants as additions."""

from typing import Any

import numpy as np

from triune.coreml.lowering.mb import mb


def add_negated_constants(block: Any) -> None:
    """Write `x - constant` of floats as `x + -constant`, which rounds the same, in a MIL block and those within it.

    coremltools 9 fuses a subtraction into the convolution before it (`fuse_conv_bias`) by negating the constant in
    place: whoever else reads the constant gets it negated, and where the array is read-only, the conversion fails.
    """
    for op in list(block.operations):
        for inner in op.blocks:
            add_negated_constants(inner)
        constant = op.y.val if op.op_type == "sub" else None
        if constant is None or np.asarray(constant).dtype.kind != "f":
            continue
        with block:
            total = mb.add(x=op.x, y=np.negative(constant), name=op.name, before_op=op)
        # What is marked to compute in fp32 goes on doing so.
        total.op.scopes = op.scopes
        block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=total)
        block.remove_ops([op])
