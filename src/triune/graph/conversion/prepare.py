"""Prepare a model for conversion: bind constants, apply shapes, bring it to core ops and supported element types."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onnx import ModelProto, TensorProto

from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnsupportedError
from triune.graph.ane import Report as LayoutReport
from triune.graph.ane import ane_layout
from triune.graph.conversion.constants import bind_constants, typed_constants
from triune.graph.conversion.contradiction import contradiction_within
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.conversion.pairings import require_pairings
from triune.graph.conversion.shapes import apply_shapes, listed
from triune.graph.conversion.text import numbers_of
from triune.graph.conversion.unknown import empty_unknown
from triune.graph.declared import free_negative_sizes
from triune.graph.defaults import OVERRIDABLE_FROM_IR, make_constants
from triune.graph.fewer_bits import find_fewer_bits
from triune.graph.half import fit_half, fit_halves
from triune.graph.normalize import normalize, require_core_ops
from triune.graph.overflows import Overflow, find_overflows
from triune.graph.own_names import give_own_names, join_combined
from triune.graph.passes.double_factors import DoubleFactors
from triune.graph.passes.narrow import Narrow
from triune.graph.passes.widen import Widen, half_interface
from triune.graph.ranges import WIDE
from triune.graph.weight_files import WeightFile
from triune.graph.weights import without_weights

Report: TypeAlias = Callable[[str], None]
"""A function that is called with one line of text about the current step."""

_MOST_NAMED = 4
"""The largest number of names in a note."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is ready to be converted.

    Attributes:
        model: the model in core ops and supported element types, with constants bound and shapes applied.
        wide: for a program in fp16, the names of the first outputs of the nodes that must compute in fp32.
        notes: messages for the user about nodes in fp32, outputs that programs cannot have, integers that may not fit,
            DOUBLE that is computed in fp32, and inputs with defaults.
        traps: the nodes with integers that, if they exceed int32, end the process of Core AI's interpreter.
    """

    model: ModelProto
    wide: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()


def prepare(
    model: ModelProto, options: ConversionOptions, layout: LayoutReport | None, tell: Report, file: WeightFile
) -> Prepared:
    """Prepare a model: the first step of every conversion.

    Args:
        model: any ONNX model; it is not changed.
        options: the options of the conversion.
        layout: the report to fill if the model is to be rewritten for the Neural Engine (`graph.ane`), else None.
        tell: called with a line of text at each step.
        file: the scratch file for new large weights.

    Raises:
        InvalidArgumentError: a shape or constant does not fit the model, shapes do not go together, or the model is
            invalid.
        UnsupportedError: the model has operators that core ops cannot express.
    """
    with translated_failures(model):
        return _prepared(model, options, layout, tell, file)


@contextlib.contextmanager
def translated_failures(model: ModelProto) -> Generator[None]:
    """A context in which passes run over `model`, and their exceptions become InvalidArgumentError or InternalError.

    Passes expect valid nodes, which ONNX's checker does not fully ensure. If ONNX itself finds an error in the model,
    its message is used.
    """
    try:
        yield
    except TriuneError:
        raise
    # With an invalid node, a pass may raise any exception.
    except Exception as error:
        why = contradiction_within(without_weights(model))
        if why is not None:
            raise InvalidArgumentError(f"the model is not valid ONNX: {why}") from error
        raise InternalError(
            f"Triune failed to bring the model to core operators ({type(error).__name__}: {error}); please report it"
        ) from error


def _prepared(
    model: ModelProto, options: ConversionOptions, layout: LayoutReport | None, tell: Report, file: WeightFile
) -> Prepared:
    copy = ModelProto()
    copy.CopyFrom(model)
    empty_unknown(copy)
    copy, dropped = numbers_of(copy)
    free_negative_sizes(copy.graph)
    bind_constants(copy, typed_constants(copy, options.constants))
    # `make_constants` runs before any pass: a pass would remove the default of an input that no node reads, and keep
    # the input.
    make_constants(copy.graph)
    apply_shapes(copy, options.shapes)
    join_combined(copy, give_own_names(copy.graph))
    tell("bringing the graph to core operators")
    # In fp16 and mixed precision, the rules for all nodes keep in fp32 what needs it.
    core = normalize(copy, file=file, widens=options.precision is Precision.FP32)
    _require_typed_outputs(core)
    require_pairings(core, options.shapes)
    differing = _notes_of_bits(core)
    core = DoubleFactors(file)(core)
    core = Widen(file, TensorProto.BFLOAT16)(core)
    # `graph.half` searches graphs of fp32, so a model in fp16 is converted to fp32, except for its interface.
    half = half_interface(core.graph)
    core = core if options.precision is Precision.FP32 else Widen(file)(core)
    is_laid_out = False
    if layout is not None:
        tell("rewriting transformers for the Neural Engine")
        before = layout.num_layers
        core = ane_layout(core, layout, file=file)
        is_laid_out = layout.num_layers > before
    overflows = find_overflows(core.graph)
    traps = tuple(each.node for each in overflows if each.is_trap)
    notes = (*dropped, *_notes_of_defaults(model, options), *_notes_of_overflows(overflows), *differing)
    narrow = Narrow(file)(core)
    if options.precision is Precision.FP32:
        return Prepared(fit_halves(narrow, file) if is_laid_out else narrow, notes=notes, traps=traps)
    if not options.fits_half:
        return Prepared(half(narrow), options.wide, notes, traps)
    tell("looking for values that fp16 cannot represent")
    fitted = fit_half(narrow, file, is_laid_out=is_laid_out, keep=options.keep_fp32)
    core = half(fitted.model)
    wide = options.wide.union(half.renamed.get(name, name) for name in fitted.wide)
    return Prepared(core, wide, (*notes, *fitted.notes), traps)


def _notes_of_defaults(model: ModelProto, options: ConversionOptions) -> list[str]:
    """A note that names the inputs with defaults, which become constants.

    Before IR version 4 every initializer had to be an input as well, and ONNX Runtime lets no caller give them, so
    there is no note for such models.
    """
    inputs = {value.name for value in model.graph.input} if model.ir_version >= OVERRIDABLE_FROM_IR else set[str]()
    names = [each.name for each in model.graph.initializer if each.name in inputs - set(options.constants)]
    if not names:
        return []
    return [f"inputs that have a default in the file become constants of that value: {some(names)}"]


def _notes_of_overflows(found: Sequence[Overflow]) -> list[str]:
    notes: list[str] = []
    wrapping = [each for each in found if not each.is_cast and each.elem_type in WIDE]
    if wrapping:
        notes.append(
            f"{_types_of(wrapping)} computed in int32, where larger numbers wrap around; it is not known whether the "
            f"results of these nodes fit: {some([each.node for each in wrapping])}"
        )
    casts = [each for each in found if each.is_cast]
    if casts:
        notes.append(
            f"{_types_of(casts)} stored in int32, so that floats beyond +-2147483647 become other numbers; it is not "
            f"known whether the floats that these nodes cast fit: {some([each.node for each in casts])}"
        )
    return notes


def _notes_of_bits(core: ModelProto) -> list[str]:
    found = find_fewer_bits(core.graph)
    notes: list[str] = []
    if found.doubles:
        notes.append(f"DOUBLE is computed in fp32, which has 24 bits of its 53: {some(found.doubles)}")
    if found.rounded:
        notes.append(
            "integers that are rounded from DOUBLE may be one more or one less than in the model, since fp32 has "
            f"fewer bits: {some(found.rounded)}"
        )
    if found.more:
        notes.append(
            "BFLOAT16 is computed in fp32, which inputs and outputs have, too: results are not rounded to the 8 bits "
            f"that they have in the model: {some(found.more)}"
        )
    if found.powers:
        notes.append(
            "powers of integers are computed in fp32, which has 24 bits, so that large ones may be inexact: "
            f"{some(found.powers)}"
        )
    return notes


def _types_of(found: Sequence[Overflow]) -> str:
    names = sorted({TensorProto.DataType.Name(each.elem_type) for each in found})
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def some(names: Sequence[str]) -> str:
    """The first names in one text, followed by how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"


def _require_typed_outputs(core: ModelProto) -> None:
    """Check that the element type of each output is declared or inferred.

    Raises:
        UnsupportedError: the element type of an output is not known.
    """
    unknown = [value.name for value in core.graph.output if not value.type.WhichOneof("value")]
    if unknown:
        require_core_ops(core)
        raise UnsupportedError(f"the types of the outputs {listed(unknown)} are not known; declare them in the model")


def silent(_what: str) -> None:
    """A `Report` for callers that want no progress messages."""
