"""The sequence of passes that run after a program is written and before it is saved."""

from collections.abc import Sequence
from typing import Any

import coremltools

from triune.coreml.lowering.interface import Interface
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.lowering.passes.casts import FuseCasts
from triune.coreml.lowering.passes.constants import MergeConstants
from triune.coreml.lowering.passes.gelu import FuseGelu
from triune.coreml.lowering.passes.linear import FuseLinear
from triune.coreml.lowering.passes.mil_pass import VendorPass
from triune.coreml.lowering.passes.norms import FuseLayerNorm
from triune.coreml.lowering.passes.outputs import NameOutputs
from triune.coreml.lowering.passes.redundant import MergeEqual
from triune.coreml.lowering.precision import compute_precision
from triune.graph.passes.run import Pass, Watcher, run_passes

_library: Any = coremltools

FP16 = "common::add_fp16_cast"
"""The pass that casts a program to fp16."""

PASSES: Sequence[Pass[Any]] = (
    VendorPass("common::dead_code_elimination"),
    VendorPass("common::const_elimination"),
    # Core ML allows at most five dimensions. This pass splits a transpose with more dimensions between two reshapes.
    VendorPass("common::expand_high_rank_reshape_and_transpose"),
    FuseGelu(),
    FuseLayerNorm(),
    FuseLinear(),
    VendorPass("common::dead_code_elimination"),
    MergeEqual(),
    # This pass makes names unique: the pass that casts to fp16 identifies values by their names.
    VendorPass("common::dedup_op_and_var_names"),
    VendorPass(FP16),
    # From iOS17 on, MIL's gathers accept no negative indices: this pass adds the size of the dimension to them.
    VendorPass("common::guard_negative_gather_indices"),
    VendorPass("common::const_elimination"),
    FuseCasts(),
    VendorPass("common::dead_code_elimination"),
    MergeConstants(),
    VendorPass("mil_backend::fuse_activation_silu"),
    VendorPass("mil_backend::adjust_io_to_supported_types"),
)
"""The passes that run: some of coremltools', and Triune's replacements for passes that are not exact."""

_NAMING: Sequence[Pass[Any]] = (
    VendorPass("mil_backend::sanitize_name_strings"),
    VendorPass("common::dedup_op_and_var_names"),
    # This pass adds an operation that reads an unused input. Its result is not used.
    VendorPass("nn_backend::handle_unused_inputs"),
)


def optimize(program: Any, interface: Interface, options: LowerOptions, watch: Watcher[Any] | None = None) -> None:
    """Run all passes on a program that was just written, which makes it ready to save.

    Args:
        program: a program of PyMIL, which is changed in place.
        interface: the inputs and outputs of the package.
        options: the options of the conversion; only the precision is used.
        watch: is called with a pass's name and the program after each pass, and before the first with the name "".
    """
    program.functions["main"].set_input_types(tuple(feature.tensor_type() for feature in interface.inputs))
    precision = compute_precision(options)
    selected = VendorPass(FP16, getattr(precision, "op_selector", None))
    passes = [selected if each.name == FP16 else each for each in PASSES]
    if precision == _library.precision.FLOAT32:
        passes.remove(selected)
    if watch is not None:
        watch("", program)
    program = run_passes(program, passes, watch)
    program = run_passes(program, [NameOutputs([feature.name for feature in interface.outputs]), *_NAMING])
    program._check_early_error_out_for_invalid_program()
    if watch is not None:
        watch("naming", program)
