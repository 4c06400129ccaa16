"""Lowering of an ONNX model to an ML Program package."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.coreml.installed import require_library
from triune.coreml.lowering.options import LowerOptions
from triune.coreml.quiet import quiet
from triune.coreml.source import SOURCE_KEY
from triune.graph.ane import Report as LayoutReport
from triune.graph.conversion.options import Layout
from triune.graph.conversion.prepare import Report, prepare, silent, translated_failures
from triune.graph.conversion.problems import require_none
from triune.graph.conversion.saved import Saved
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
    """A saved package.

    Attributes:
        inputs: for each input's name in the ONNX model, its name in the package.
        outputs: for each output's name in the ONNX model, its name in the package.
        num_ops: the number of operations of the program, without constants.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    num_ops: int


def lower(
    model: ModelProto,
    path: Path,
    options: LowerOptions | None = None,
    *,
    report: Report = silent,
    audit: "Audit | None" = None,
) -> Lowered:
    """Convert `model` to an ML Program and save it at `path`; a package there is replaced.

    Args:
        model: any ONNX model, which is not changed. If it has external data, `graph.load` must have set their paths.
        path: where to save the package; ends in .mlpackage.
        options: the options of the conversion.
        report: is called with a line of text for each step.
        audit: makes a watcher, which sees the program before and after each pass.

    Raises:
        InvalidArgumentError: `path` does not end in .mlpackage, or the model contradicts a given shape or itself.
        UnsupportedError: nodes cannot be converted: one message names each with its reason and what to do. Or
            coremltools is not installed.
    """
    if path.suffix != ".mlpackage":
        raise InvalidArgumentError(f"'{path}' does not end in .mlpackage")
    options = options or LowerOptions()
    with quiet(), WeightFile() as file:
        require_library()
        from triune.coreml.lowering.interface import interface_of
        from triune.coreml.lowering.merge_axes import MergeAxes
        from triune.coreml.lowering.passes.pipeline import optimize
        from triune.coreml.lowering.program import ProgramWriter
        from triune.coreml.lowering.saving import save

        layout = LayoutReport() if options.layout is Layout.ANE else None
        prepared = prepare(model, options, layout, report, file)
        require_known(options.keep_fp32, prepared.model.graph)
        with translated_failures(model):
            merge = MergeAxes()
            graph = Tidy()(merge(ConvAffine(file)(prepared.model)))
        wide = {merge.parted[name] for name in prepared.wide if name in merge.parted}
        prepared = replace(prepared, model=graph, wide=prepared.wide | wide)
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
        # coremltools' passes raise exceptions of many classes.
        except Exception as error:
            if "rank <=" in str(error):
                require_none(writer.deep, "Core ML")
            text = " ".join(str(error).split()) or repr(error)
            raise UnsupportedError(
                f"coremltools refuses the program: {text}; please report it with the model"
            ) from error
        report("saving the package")
        description = model.graph.doc_string or f"Converted from ONNX graph '{model.graph.name}'"
        save(program, interface.opset, path, description, {SOURCE_KEY: json.dumps(_source(model, graph, interface))})
        return Lowered(
            path=path,
            inputs={feature.source: feature.name for feature in interface.inputs},
            outputs={feature.source: feature.name for feature in interface.outputs},
            num_ops=sum(op.op_type != "const" for op in _ops(program.functions["main"])),
            notes=[*prepared.notes, *writer.notes],
            layout=layout,
        )


def _ops(block: Any) -> list[Any]:
    """All operations of a block and of the blocks within it."""
    found: list[Any] = []
    for op in block.operations:
        found.append(op)
        for inner in op.blocks:
            found += _ops(inner)
    return found


def _source(model: ModelProto, prepared: ModelProto, interface: "Interface") -> dict[str, Any]:
    """Describe the inputs and outputs of the ONNX model, for the metadata of the package.

    For each, by its name in the package: its name in the model, its declared element type and its inferred rank. With
    these a caller can pass tensors as the ONNX model has them.
    """
    types = {value.name: value.type.tensor_type for value in (*model.graph.input, *model.graph.output)}
    inferred = {value.name: value.type.tensor_type for value in (*prepared.graph.input, *prepared.graph.output)}

    def described(source: str, name: str) -> dict[str, Any]:
        tensor = inferred[source]
        kind = TensorProto.DataType.Name(types[source].elem_type or tensor.elem_type)
        entry: dict[str, Any] = {"source": source, "type": kind}
        if tensor.HasField("shape"):
            entry["rank"] = len(tensor.shape.dim)
        return {name: entry}

    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for feature in interface.inputs:
        inputs |= described(feature.source, feature.name)
    for feature in interface.outputs:
        outputs |= described(feature.source, feature.name)
    return {"format": "onnx", "graph": model.graph.name, "inputs": inputs, "outputs": outputs}
