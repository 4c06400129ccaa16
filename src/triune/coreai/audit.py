"""Find outputs that Apple's compiler changes when it rewrites a program.

The compiler also rewrites a program when it is loaded, so that the original cannot be run. Instead, a copy is run in
which barriers keep the compiler from fusing operations. Apple's interpreter runs both. `verify` compares a program with
its source in ONNX Runtime; this module compares only the two programs.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import TriuneError, UnsupportedError
from triune.coreai.lowering import MAIN, LowerOptions, Source, lower_functions
from triune.coreai.model import Model
from triune.coreai.verify import computed, is_judged_by_apple, pictured
from triune.graph.audit import Difference, Finding, InputSet, differences, find_difference
from triune.graph.conversion.constants import typed_constants
from triune.graph.conversion.options import Precision
from triune.graph.precision import TOLERANCES, precision_of
from triune.graph.verify import OnnxModel, samples_of

STEP: Final = "Core AI's rewriting"


def audit(source: Source[LowerOptions], path: Path, function: str, given: Mapping[str, Array]) -> list[Finding]:
    """Find the outputs of a function that the compiler's rewriting changes.

    Args:
        source: the graph from which the function was lowered.
        path: the asset.
        function: the function's name.
        given: inputs and states by name. The others are made up.

    Raises:
        InvalidArgumentError: an array has a shape that the function does not take.
        UnsupportedError: Apple's interpreter takes no images on this system, values cannot be made up for an input, or
            the function accepts none of the generated inputs.
    """
    if not is_judged_by_apple(source.options):
        raise UnsupportedError("Apple's interpreter takes no images on this system, and --check needs it: leave it out")
    with tempfile.TemporaryDirectory() as folder:
        unfused = lower_functions({function: source}, Path(folder) / "unfused.aimodel", may_fuse=False).path
        return list(_compared(source, function, unfused, path, given))


def _compared(
    source: Source[LowerOptions], function: str, unfused: Path, fused: Path, given: Mapping[str, Array]
) -> Iterator[Finding]:
    """Run both programs on samples, and yield the outputs that differ.

    `unfused` is the program with a barrier after each operation, `fused` the program itself.
    """
    model, options = source.model, source.options
    tolerance = TOLERANCES["fp32" if options.precision is Precision.FP32 else "fp16"]
    tolerance = max(tolerance, TOLERANCES[precision_of(model)])
    known = {**given, **typed_constants(model, options.constants)}
    sets = samples_of(model, options.shapes, known, is_half=tolerance > TOLERANCES["fp32"])
    step = STEP if function == MAIN else f"{STEP} of function '{function}'"
    origin = OnnxModel(model)
    refusal: TriuneError | None = None
    is_answered = False
    with (
        Model(unfused, function=function, executor="interpreter") as before,
        Model(fused, function=function, executor="interpreter") as after,
    ):
        for each in (pictured(each, options, given) for each in sets):
            try:
                reference = computed(before, options, each.arrays)
            except TriuneError as error:
                # Go on with other inputs, since a program may refuse generated ones.
                refusal = error
                continue
            is_answered = True
            yield from _findings(step, each, reference, after, source, origin, tolerance)
    if not is_answered and refusal is not None:
        raise UnsupportedError(
            f"function '{function}' takes none of the inputs that were made up, so that it was not checked: {refusal}; "
            "give inputs that it takes with --input"
        )


def _findings(
    step: str,
    inputs: InputSet,
    reference: Mapping[str, Array],
    after: Model,
    source: Source[LowerOptions],
    origin: OnnxModel,
    tolerance: float,
) -> Iterator[Finding]:
    """Run the program itself, and yield the outputs that differ from `reference` and are farther from the source."""
    try:
        found = computed(after, source.options, inputs.arrays)
    except TriuneError as error:
        yield Finding(step, "all", inputs.name, Difference("answers", f"an error: {error}", (), np.inf))
        return
    changed = list(differences(step, inputs, reference, found, tolerance))
    if not changed:
        return
    # A changed output is a fault only if it is farther from the source's answer than the output of the program with
    # barriers (`reference`). It may be nearer: fused constants of fp16, for instance, are rounded only once.
    wanted = origin.run(inputs.arrays)
    for each in changed:
        name = each.output
        if name not in found or _error(wanted, found, name) > _error(wanted, reference, name):
            yield each


def _error(wanted: Mapping[str, Array], found: Mapping[str, Array], name: str) -> float:
    difference = find_difference(wanted[name], found[name].astype(wanted[name].dtype), 0.0)
    return 0.0 if difference is None else difference.error
