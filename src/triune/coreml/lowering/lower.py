"""Lowering of ONNX models to an ML Program package: each model becomes a function of one program."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.printable import printable
from triune.coreml.installed import require_library
from triune.coreml.lowering.accumulating import accumulating_note
from triune.coreml.lowering.options import LowerOptions, Target
from triune.coreml.quiet import quiet
from triune.coreml.source import SOURCE_KEY
from triune.graph.ane import Report as LayoutReport
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.prepare import Prepared, Report, prepare, silent, some, translated_failures
from triune.graph.conversion.problems import require_none
from triune.graph.conversion.saved import Saved
from triune.graph.conversion.sources import MAIN, Source, description_of
from triune.graph.passes.conv_affine import ConvAffine
from triune.graph.passes.halve import require_known
from triune.graph.passes.tidy import Tidy
from triune.graph.weight_files import WeightFile

if TYPE_CHECKING:
    from triune.coreml.lowering.interface import Interface
    from triune.graph.passes.run import Watcher

    Audit = Callable[[ModelProto, Interface, LowerOptions], Watcher[Any]]
    """A function that makes a watcher of the passes, given the model, the package's interface and the options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered(Saved):
    """A function of a saved package.

    Attributes:
        function: its name.
        inputs: for each input's name in the ONNX model, its name in the package.
        outputs: for each output's name in the ONNX model, its name in the package.
        states: for each state's name in the ONNX model, its name in the package.
        num_ops: the number of operations of the function, without constants.
    """

    function: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    states: Mapping[str, str]
    num_ops: int


@dataclass(frozen=True, slots=True)
class _Written:
    """A function that was written and optimized: the program whose `main` it is, and the graph that it was made
    from.
    """

    program: Any
    prepared: Prepared
    interface: "Interface"
    notes: Sequence[str]
    layout: LayoutReport | None


def lower(
    model: ModelProto,
    path: Path,
    options: LowerOptions | None = None,
    *,
    report: Report = silent,
    audit: "Audit | None" = None,
) -> Lowered:
    """Convert `model` to an ML Program with the function `main`: see `lower_functions`.

    Args:
        model: any ONNX model, which is not changed. If it has external data, `graph.load` must have set the paths of
            its files.
        path: where to save the package; ends in .mlpackage.
        options: the options of the conversion.
        report: is called with a line of text for each step.
        audit: makes a watcher, which sees the program before and after each pass.
    """
    return lower_functions({MAIN: Source(model, options or LowerOptions())}, path, report=report, audit=audit)[MAIN]


def lower_functions(
    sources: Mapping[str, Source[LowerOptions]], path: Path, *, report: Report = silent, audit: "Audit | None" = None
) -> dict[str, Lowered]:
    """Convert models to functions of one ML Program, which share equal weights, and save it at `path`.

    Args:
        sources: the models by the function's name; the first one is the function that runs if none is named.
        path: where to save the package; ends in .mlpackage. A package there is replaced.
        report: is called with a line of text for each step.
        audit: makes a watcher, which sees each program before and after each pass.

    Raises:
        InvalidArgumentError: `path` does not end in .mlpackage, Core ML does not accept a function's name, a model
            contradicts a given shape or itself, or several functions are to run on a system before iOS18.
        UnsupportedError: coremltools is not installed, or nodes cannot be converted: one message names each with its
            reason and what to do.
    """
    if path.suffix != ".mlpackage":
        raise InvalidArgumentError(f"'{path}' does not end in .mlpackage")
    if list(sources) != [MAIN]:
        _require_functions(sources)
    with quiet(), WeightFile() as file:
        require_library()
        from triune.coreml.lowering.functions import joined
        from triune.coreml.lowering.saving import save

        written: dict[str, _Written] = {}
        for name, source in sources.items():
            where = f" of '{name}'" if len(sources) > 1 else ""
            written[name] = _write(source, file, lambda what, where=where: report(f"{what}{where}"), audit)
        program = joined({name: each.program for name, each in written.items()})
        report("saving the package")
        opset = next(iter(written.values())).interface.opset
        save(
            program,
            opset,
            path,
            description_of(sources.values()),
            {SOURCE_KEY: json.dumps(_metadata(sources, written))},
        )
        return {name: _lowered(name, path, each) for name, each in written.items()}


def _require_functions(sources: Mapping[str, Source[LowerOptions]]) -> None:
    for name, source in sources.items():
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidArgumentError(
                f"Core ML has no function called '{printable(name)}': a name has letters, digits and underscores, and "
                "begins with a letter"
            )
        if source.options.target is not Target.IOS18:
            raise InvalidArgumentError(
                f"a package with functions of names of their own needs iOS18, and it is to run on "
                f"{source.options.target.label}: convert each to a package of its own, as 'main'"
            )


def _write(source: Source[LowerOptions], file: WeightFile, report: Report, audit: "Audit | None") -> _Written:
    from triune.coreml.lowering.deep.fewer_axes import FewerAxes
    from triune.coreml.lowering.interface import interface_of
    from triune.coreml.lowering.passes.pipeline import optimize
    from triune.coreml.lowering.program import ProgramWriter

    model, options = source.model, source.options
    layout = LayoutReport() if options.layout is Layout.ANE else None
    prepared = prepare(model, options, layout, report, file)
    require_known(options.keep_fp32, prepared.model.graph)
    with translated_failures(model):
        fewer = FewerAxes(prepared.wide)
        graph = Tidy()(fewer(ConvAffine(file)(prepared.model)))
    prepared = replace(prepared, model=graph, wide=prepared.wide | fewer.wide)
    interface = interface_of(graph, options)
    report("writing the program")
    writer = ProgramWriter(prepared, interface, options)
    program = writer.write()
    require_none(writer.problems, "Core ML")
    report("optimizing the program")
    try:
        optimize(program, interface, options, None if audit is None else audit(graph, interface, options))
    except TriuneError:
        raise
    # Catch `Exception`, since passes of coremltools raise exceptions of many classes.
    except Exception as error:
        if "rank <=" in str(error):
            require_none(writer.deep, "Core ML")
        text = " ".join(str(error).split()) or repr(error)
        raise UnsupportedError(f"coremltools refuses the program: {text}; please report it with the model") from error
    rounded = [state.source for state in interface.states if state.elem_type == TensorProto.FLOAT]
    notes = [*prepared.notes, *writer.notes]
    if rounded and options.precision is Precision.FP32:
        notes.append(f"Core ML's states are fp16, and the program computes in fp32: it rounds {some(rounded)}")
    notes += accumulating_note(graph.graph, {state.source: state.next for state in interface.states})
    return _Written(program, prepared, interface, notes, layout)


def _lowered(name: str, path: Path, written: _Written) -> Lowered:
    interface = written.interface
    return Lowered(
        path=path,
        function=name,
        inputs={feature.source: feature.name for feature in interface.inputs},
        outputs={feature.source: feature.name for feature in interface.outputs},
        states={feature.source: feature.name for feature in interface.states},
        num_ops=sum(op.op_type != "const" for op in _ops(written.program.functions[MAIN])),
        notes=written.notes,
        layout=written.layout,
    )


def _ops(block: Any) -> list[Any]:
    """All operations of a block and of the blocks within it."""
    found: list[Any] = []
    for op in block.operations:
        found.append(op)
        for inner in op.blocks:
            found += _ops(inner)
    return found


def _metadata(sources: Mapping[str, Source[LowerOptions]], written: Mapping[str, _Written]) -> dict[str, Any]:
    """Describe the inputs, outputs and states of the ONNX models, for the metadata of the package.

    For each, by its name in the package: its name in the model, its declared element type and its inferred rank. With
    these a caller can pass tensors as the ONNX model has them.

    Raises:
        InvalidArgumentError: tensors of two models have one name in the package.
    """
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for name, source in sources.items():
        each = written[name]
        described = _Described(source.model, each.prepared.model)
        for known, features in (
            (inputs, (*each.interface.inputs, *each.interface.states)),
            (outputs, each.interface.outputs),
        ):
            for feature in features:
                entry = described(feature.source)
                if known.setdefault(feature.name, entry) != entry:
                    raise InvalidArgumentError(
                        f"'{feature.name}' of function '{name}' would be {_shown(entry)}, and of another function "
                        f"{_shown(known[feature.name])}: give them other names in the models"
                    )
    graph = next(iter(sources.values())).model.graph.name
    return {"format": "onnx", "graph": graph, "inputs": inputs, "outputs": outputs}


class _Described:
    """Describes inputs and outputs of a model for the metadata of the package: name, element type and rank."""

    def __init__(self, model: ModelProto, prepared: ModelProto) -> None:
        self._types = _tensor_types(model)
        self._inferred = _tensor_types(prepared)

    def __call__(self, source: str) -> dict[str, Any]:
        tensor = self._inferred[source]
        kind = TensorProto.DataType.Name(self._types[source].elem_type or tensor.elem_type)
        entry: dict[str, Any] = {"source": source, "type": kind}
        return entry | {"rank": len(tensor.shape.dim)} if tensor.HasField("shape") else entry


def _tensor_types(model: ModelProto) -> dict[str, Any]:
    return {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}


def _shown(entry: Mapping[str, Any]) -> str:
    return f"'{printable(entry['source'])}', {entry['type']} of rank {entry.get('rank', '?')}"
