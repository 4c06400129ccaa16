"""The passes between the writing of a program and its saving, one by one."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import coremltools
from coremltools.converters.mil.mil.passes import pass_registry

from triune.coreml.lowering.half_cast import small_steps
from triune.coreml.lowering.interface import Interface
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.lowering.passes.blocks import in_pass
from triune.coreml.lowering.passes.casts import fuse_casts
from triune.coreml.lowering.passes.constants import merge_constants
from triune.coreml.lowering.passes.gelu import fuse_gelu
from triune.coreml.lowering.passes.linear import fuse_linear
from triune.coreml.lowering.passes.norms import fuse_layer_norm
from triune.coreml.lowering.passes.outputs import name_outputs
from triune.coreml.lowering.passes.redundant import merge_equal
from triune.coreml.lowering.precision import compute_precision

_library: Any = coremltools
_passes: Any = pass_registry.PASS_REGISTRY

Pass: TypeAlias = str | Callable[[Any], None]
"""The name of one of coremltools' passes, or one of Triune's own. Both change the program."""

FP16 = "common::add_fp16_cast"
"""The pass that brings a program to fp16."""

PASSES: Sequence[Pass] = (
    "common::dead_code_elimination",
    "common::const_elimination",
    # Reshapes and transpositions between them that have more than five dimensions on the way.
    "common::expand_high_rank_reshape_and_transpose",
    fuse_gelu,
    fuse_layer_norm,
    fuse_linear,
    "common::dead_code_elimination",
    merge_equal,
    # FP16 knows values by their names.
    "common::dedup_op_and_var_names",
    FP16,
    # From iOS17 on gathers take no negative indices.
    "common::guard_negative_gather_indices",
    "common::const_elimination",
    fuse_casts,
    "common::dead_code_elimination",
    merge_constants,
    "mil_backend::fuse_activation_silu",
    "mil_backend::adjust_io_to_supported_types",
)
"""Few of coremltools' passes, and what of the others is worth having, written anew and right."""

_NAMING: Sequence[Pass] = (
    "mil_backend::sanitize_name_strings",
    "common::dedup_op_and_var_names",
    # Inputs that nobody reads are given to an op that nobody reads.
    "nn_backend::handle_unused_inputs",
)


class Watcher(Protocol):
    """Sees a program before the first pass and after each."""

    def __call__(self, step: str, program: Any) -> None:
        """`step` is the pass that ran, empty before the first. The program must not be changed."""
        ...


def optimize(program: Any, interface: Interface, options: LowerOptions, watch: Watcher | None = None) -> None:
    """Changes a program that was just written, to what is saved.

    Args:
        program: of PyMIL.
        interface: of the package.
        options: whose precision counts.
        watch: called before the first pass and after each.
    """
    program.functions["main"].set_input_types(tuple(feature.tensor_type() for feature in interface.inputs))
    precision = compute_precision(options)
    passes = [step for step in PASSES if step != FP16 or precision != _library.precision.FLOAT32]
    run_passes(program, passes, getattr(precision, "op_selector", None), watch)
    name_outputs(program, [feature.name for feature in interface.outputs])
    run_passes(program, _NAMING)
    program._check_early_error_out_for_invalid_program()
    if watch is not None:
        watch("naming", program)


def run_passes(
    program: Any, passes: Sequence[Pass], selector: Callable[[Any], bool] | None = None, watch: Watcher | None = None
) -> None:
    """Changes the program.

    Args:
        program: of PyMIL.
        passes: in order.
        selector: whether an op is to compute in fp16; None for all. For the pass `FP16`.
        watch: called before the first pass and after each.
    """
    if watch is not None:
        watch("", program)
    for step in passes:
        if isinstance(step, str):
            _run_vendor(program, step, selector)
        else:
            with in_pass(step.__name__):
                step(program)
        program.validate()
        if watch is not None:
            watch(step if isinstance(step, str) else step.__name__, program)


def _run_vendor(program: Any, name: str, selector: Callable[[Any], bool] | None) -> None:
    """As coremltools' own manager of pipelines does, which writes the program out as text around each of them."""
    step = type(_passes[name])()
    if name == FP16:
        step.op_selector = selector
    with small_steps():
        step(program)
