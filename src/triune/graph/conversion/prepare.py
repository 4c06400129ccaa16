"""What is done to a model before it is converted, whatever to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from onnx import ModelProto

from triune.core.errors import UnsupportedError
from triune.graph.ane import Report as LayoutReport
from triune.graph.ane import ane_layout
from triune.graph.conversion.constants import bind_constants, typed_constants
from triune.graph.conversion.options import ConversionOptions, Precision
from triune.graph.conversion.shapes import apply_shapes, listed
from triune.graph.declared import free_negative_sizes
from triune.graph.half import fit_half
from triune.graph.normalize import normalize, require_core_ops
from triune.graph.passes.narrow import Narrow
from triune.graph.weight_files import WeightFile

Report: TypeAlias = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to be converted.

    Attributes:
        model: in core ops and in element types that programs have, its constants bound and its shapes applied.
        wide: where the program is to compute in fp16: the nodes that fp16 cannot compute, each by its first result.
        notes: what a user is told of them.
    """

    model: ModelProto
    wide: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def prepare(
    model: ModelProto, options: ConversionOptions, layout: LayoutReport | None, tell: Report, file: WeightFile
) -> Prepared:
    """What every conversion begins with.

    Args:
        model: any ONNX model. Not changed.
        options: see there.
        layout: told what is brought into the Neural Engine's layout; None where nothing is to be.
        tell: told of each step.
        file: takes large weights that are made.

    Raises:
        InvalidArgumentError: a given shape or constant contradicts the model, or the model itself.
        UnsupportedError: it has operators that core ops do not write.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    free_negative_sizes(copy.graph)
    bind_constants(copy, typed_constants(copy, options.constants))
    apply_shapes(copy, options.shapes)
    tell("bringing the graph to core operators")
    core = normalize(copy, file=file)
    _require_typed_outputs(core)
    if layout is not None:
        tell("bringing transformers into the Neural Engine's layout")
        core = ane_layout(core, layout, file=file)
    narrow = Narrow(file)(core)
    if options.precision is Precision.FP32:
        return Prepared(narrow)
    tell("looking for what fp16 cannot hold")
    fitted = fit_half(narrow, file, is_whole=layout is not None)
    return Prepared(fitted.model, fitted.wide, fitted.notes)


def _require_typed_outputs(core: ModelProto) -> None:
    """Raises UnsupportedError for an output of which neither the model nor inference tells the element type."""
    unknown = [value.name for value in core.graph.output if not value.type.WhichOneof("value")]
    if unknown:
        require_core_ops(core)
        raise UnsupportedError(f"the types of the outputs {listed(unknown)} are not known; declare them in the model")


def silent(_what: str) -> None:
    """Nobody asked."""
