"""A pass that merges equal constants."""

import hashlib
from typing import Any

import numpy as np

from triune.coreml.lowering.context import dtype_name
from triune.coreml.lowering.passes.blocks import blocks_of, replace
from triune.coreml.lowering.passes.mil_pass import MilPass

_LEAST_BYTES = 1024


class MergeConstants(MilPass):
    """Replace constants of equal type, shape and bytes in a block by the first of them.

    This replaces coremltools' `const_deduplication`, which also merges weights that differ by less than 1e-12, or 6e-8
    in fp16.
    """

    name = "merge_constants"

    def change(self, program: Any) -> None:
        """Merge the equal constants of `program`, which is changed in place."""
        for block in blocks_of(program):
            with block:
                known: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
                for op in list(block.operations):
                    value = op.outputs[0] if op.op_type == "const" else None
                    # Check for scalars first: their value may be a Python number, which has no `nbytes`.
                    if value is None or value.rank == 0 or value in block.outputs or value.val.nbytes < _LEAST_BYTES:
                        continue
                    array = value.val
                    digest = hashlib.sha256(np.ascontiguousarray(array).data).digest()
                    first = known.setdefault((dtype_name(value), array.shape, digest), value)
                    if first is not value:
                        replace(block, op, first)
