"""Join programs into one program of several functions, which share weights."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from triune.coreml.lowering.context import dtype_name
from triune.coreml.lowering.mb import Program, types
from triune.coreml.lowering.passes.blocks import blocks_of


def joined(programs: Mapping[str, Any]) -> Any:
    """Join the functions `main` of several programs to one program. The given programs must not be used afterwards. A
    single program is returned unchanged.

    Functions share weights, since coremltools writes constants that have the same `weight_id` only once. Its own search
    for equal constants (`const_deduplication`) is not used: it also merges constants that differ by less than 1e-12, or
    6e-8 in fp16.

    Args:
        programs: coremltools' programs, after all passes, by the names of the functions. The first one is the function
            that runs if none is named.
    """
    first = next(iter(programs))
    if len(programs) == 1 and first == "main":
        return programs[first]
    program = Program()
    for name, each in programs.items():
        program.add_function(name, each.functions["main"])
    program.default_function_name = first
    program.export_as_multifunction = True
    # All passes have run on each program already.
    program.skip_all_passes = True
    _share_weights(program)
    return program


def _share_weights(program: Any) -> None:
    """Give each constant that is stored as a weight an id computed from its contents. Without ids, coremltools takes
    constants of the same name in two functions for the same constant.
    """
    for block in blocks_of(program):
        for op in block.operations:
            value = op.outputs[0] if op.op_type == "const" else None
            if value is not None and types.is_tensor(value.sym_type):
                array = np.asarray(value.val)
                digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
                op.weight_id = f"{dtype_name(value)} {list(array.shape)} {digest}"
