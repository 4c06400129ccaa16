"""A pass that removes casts which change nothing."""

from collections.abc import Mapping, Set
from typing import Any

from triune.coreml.lowering.context import dtype_name
from triune.coreml.lowering.mb import mb
from triune.coreml.lowering.passes.blocks import blocks_of, replace
from triune.coreml.lowering.passes.mil_pass import MilPass

_HOLDS: Mapping[str, Set[str]] = {
    "fp32": frozenset({"fp16", "bool", "int8", "uint8", "int16", "uint16"}),
    "fp16": frozenset({"bool", "int8", "uint8"}),
    "int32": frozenset({"bool", "int8", "uint8", "int16", "uint16"}),
}
"""For each type, the types whose values it represents exactly."""


class FuseCasts(MilPass):
    """Remove casts to a value's own type, and replace a cast of a cast by one cast of the first value.

    A first cast is removed only if it is exact. coremltools' `cast_optimization` also removes casts that round: of
    16,777,217 from int32 to fp32 (16,777,216) and back, or of 0.4 from fp32 to int32 (0) before a cast to bool.
    """

    name = "fuse_casts"

    def change(self, program: Any) -> None:
        """Remove or join the casts of `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                for op in list(block.operations):
                    if op.op_type == "cast":
                        _fuse(block, op)


def _fuse(block: Any, op: Any) -> None:
    source = op.x
    while source.op is not None and source.op.op_type == "cast" and _is_exact(source.op):
        source = source.op.x
    is_given_out = op.outputs[0] in block.outputs
    if dtype_name(source) == op.dtype.val:
        # Put an identity in place of a cast that computes an output of the block: the output keeps its name, and must
        # not become the same value as another output.
        replace(block, op, mb.identity(x=source, name=op.outputs[0].name, before_op=op) if is_given_out else source)
    elif source is not op.x:
        replace(block, op, mb.cast(x=source, dtype=op.dtype.val, name=op.outputs[0].name, before_op=op))


def _is_exact(cast: Any) -> bool:
    """Whether a cast keeps the number of every value of its operand's type."""
    before, after = dtype_name(cast.x), cast.dtype.val
    return before == after or before in _HOLDS.get(after, frozenset())
