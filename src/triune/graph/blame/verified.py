"""Verify a conversion of an ONNX model to fp16, and find which nodes must compute in fp32 if it is wrong."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto, TensorProto

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError, UnsupportedError
from triune.graph.audit import InputSet, SizedInputs
from triune.graph.bare import infer_bare
from triune.graph.blame.examine import Wrong, examine
from triune.graph.blame.gates import Gates, described
from triune.graph.blame.judge import error_of
from triune.graph.blame.largest import SMALLEST, largest_note
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.precision import precision_of
from triune.graph.values import Values
from triune.graph.verify import Compute, OnnxModel, OutputVerdict, Verdict, verify

_NARROW_SECONDS = 4.0
"""After this many seconds, or after the time that the ordinary sets of inputs took, no further set of inputs with
values in narrow ranges (`InputSet.is_narrow`) is run.
"""

_FEW_NODES = 64
"""For a model of at most this many nodes, the time limit for sets of inputs with values in narrow ranges is five times
as long (5 * _NARROW_SECONDS), so that all are tried even on a busy machine.
"""

_SECONDS = 40.0
"""The time limit, in seconds, of a verification with its search. It is below a minute, since the user did not ask for
it.
"""

_LATEST = 25.0
"""When more than this many seconds of the verification have passed, no search begins: it could exceed the time limit,
and the verdicts known by then would be lost.
"""


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification.

    Attributes:
        verdicts: a verdict for each output, on ordinary inputs.
        wide: the names of the first results of nodes that should compute in fp32; the conversion is then to be done and
            verified again.
        notes: why these nodes should compute in fp32, and what is not known of the conversion.
        doubts: the kinds of inputs with values in narrow ranges (`InputSet.is_narrow`) for which outputs are wrong, if
            no further nodes were found.
        largest: how large inputs may be for outputs to be right, and which output is wrong for larger ones; "" if none
            was found wrong.
        num_tried: the number of sets of inputs that were tried until the time for that was over.
        num_sets: the number of sets that there are.
    """

    verdicts: Sequence[OutputVerdict]
    wide: Sequence[str] = ()
    notes: Sequence[str] = ()
    doubts: Sequence[str] = ()
    largest: str = ""
    num_tried: int = 0
    num_sets: int = 0


def verify_halved(
    model: ModelProto,
    options: ConversionOptions,
    sets: Sequence[InputSet],
    narrow: Sequence[InputSet],
    sized: Sequence[SizedInputs],
    source: OnnxModel,
    expected: Compute,
    gates: Gates,
    result: Compute,
    tolerance: float,
) -> Verified:
    """Compare a model with its conversion, and examine what is wrong.

    Args:
        model: the source.
        options: the options of its conversion.
        sets: ordinary sets of inputs (`samples_of`).
        narrow: sets for which terms cancel (`narrow_samples_of`); they count if the conversion is to fp16.
        sized: inputs that can be made larger (`sized_samples_of`). If the conversion is to fp16, the last step tries
            how large they may be.
        source: runs `gates.model` in ONNX Runtime.
        expected: computes the right outputs from inputs, by `source`.
        gates: collects the values of the conditions in `model`; its `model` has them as further outputs.
        result: computes the conversion's outputs.
        tolerance: the allowed error of floats, relative to an output's largest element.

    Raises:
        As `triune.graph.verify.verify`.
    """
    num_tried = 0

    def right(arrays: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal num_tried
        num_tried += 1
        return gates.learn(arrays, expected(arrays))

    started = time.monotonic()
    wrong: list[Wrong] = []

    def note_wrong(inputs: InputSet, actual: Mapping[str, Array]) -> None:
        wrong.append(Wrong(inputs, actual))

    verdicts = verify(sets, right, result, source, tolerance, on_wrong=note_wrong)
    if source.is_random:
        # The model draws random numbers. `verify` has run it twice on each set of inputs to find out which outputs are
        # random, and nothing more can be compared.
        return Verified(verdicts)
    if options.precision is Precision.FP32 or not _computes_in_fp32(model):
        return Verified(verdicts, num_tried=num_tried, num_sets=len(sets))
    is_small = len(model.graph.node) <= _FEW_NODES
    elapsed = time.monotonic() - started
    run_seconds = elapsed / max(num_tried, 1)
    seconds = 5 * _NARROW_SECONDS if is_small else min(_NARROW_SECONDS, elapsed)
    wrong += _narrowly_wrong(narrow, right, result, tolerance, seconds)
    known = Verified(verdicts, num_tried=num_tried, num_sets=len(sets) + len(narrow))
    untaken = list(gates.untaken())
    elapsed = time.monotonic() - started
    if (wrong or untaken) and elapsed > _LATEST:
        notes = [f"no generated input takes {described(untaken)}, so that was not compared"] if untaken else []
        return replace(known, notes=notes, doubts=[each.inputs.name for each in wrong if each.inputs.is_narrow])
    if wrong or untaken:
        found = examine(model, options, wrong, untaken, tolerance, _SECONDS - elapsed)
        fresh = tuple(name for name in found.wide if name not in options.wide)
        known = replace(known, wide=fresh, notes=found.notes, doubts=() if fresh else found.doubts)
    is_wrong = any(each.verdict is Verdict.WRONG and not each.is_in_few_integers for each in verdicts)
    if known.wide or is_wrong:
        return known
    largest = largest_note(sized, right, result, source, tolerance, seconds, run_seconds)
    if largest is None:
        late = f"inputs larger than {SMALLEST:g} were not compared, since the time for that was over"
        return replace(known, notes=[*known.notes, late])
    return replace(known, largest=largest)


def _narrowly_wrong(
    sets: Sequence[InputSet], right: Compute, result: Compute, tolerance: float, seconds: float
) -> list[Wrong]:
    started = time.monotonic()
    found: list[Wrong] = []
    for each in sets:
        if time.monotonic() - started > seconds:
            break
        try:
            expected = right(each.arrays)
            actual = result(each.arrays)
        except (InvalidArgumentError, UnsupportedError, InternalError):
            # Skip inputs whose sizes or values the source or the conversion refuses: the two cannot be compared on
            # them.
            continue
        if any(error_of(array, actual[name], tolerance) > 1 for name, array in expected.items() if _is_float(array)):
            found.append(Wrong(each, actual))
    return found


def _computes_in_fp32(model: ModelProto) -> bool:
    """Whether any node except a Cast computes in fp32. In a model that otherwise computes in fp16 or bf16, such a node
    was kept in fp32 for accuracy.
    """
    if precision_of(model) == "fp32":
        return True
    values = Values(infer_bare(model).graph)
    return any(
        values.elem_type(name) == TensorProto.FLOAT
        for node in model.graph.node
        if node.op_type not in ("Cast", "Constant")
        for name in node.output
        if name
    )


def _is_float(array: Array) -> bool:
    return array.dtype.kind in "fV"
