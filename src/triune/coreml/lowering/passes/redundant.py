"""A pass that merges operations which compute the same value."""

from typing import Any

import numpy as np

from triune.coreml.lowering.mb import Var
from triune.coreml.lowering.passes.blocks import blocks_of, replace
from triune.coreml.lowering.passes.mil_pass import MilPass
from triune.coreml.lowering.precision import is_kept

_LARGE = 100
"""A constant with more elements equals only itself here (the same `Var`). The later pass `merge_constants` merges equal
large constants.
"""


class MergeEqual(MilPass):
    """Replace operations of one type with the same operands in a block by the first of them.

    coremltools' `remove_redundant_ops` takes the constants 0.0 and -0.0 for the same, and so merges x / 0.0 and x /
    -0.0.
    """

    name = "merge_equal"

    def change(self, program: Any) -> None:
        """Merge the equal operations of `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                known: dict[Any, Any] = {}
                for op in list(block.operations):
                    if not _is_plain(op):
                        continue
                    inputs = [(name, _key(value)) for name, value in op.inputs.items()]
                    first = known.setdefault((op.op_type, is_kept(op), tuple(inputs)), op)
                    if first is not op and op.outputs[0] not in block.outputs:
                        replace(block, op, first.outputs[0], is_equal=True)


def _is_plain(op: Any) -> bool:
    """Whether an operation has one result, which depends on nothing but its operands, and no side effect."""
    is_other = op.op_type == "const" or "state" in op.op_type or "list" in op.op_type or "random" in op.op_type
    return not is_other and not op.blocks and len(op.outputs) == 1


def _key(value: Any) -> Any:
    return tuple(_key_of(each) for each in value) if hasattr(value, "__len__") else _key_of(value)


def _key_of(value: Var) -> Any:
    if value.op is None or value.op.op_type != "const" or np.size(value.val) > _LARGE:
        return id(value)
    known = np.asarray(value.val)
    return str(value.dtype), known.dtype.str, known.shape, known.tobytes()
