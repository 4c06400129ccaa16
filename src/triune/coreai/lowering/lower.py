"""Lowering of ONNX models to a Core AI asset: each model becomes a function of one program."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.coreai.installed import require_library
from triune.coreai.lowering.ladders import Ladder, ladder_of, with_shapes
from triune.coreai.lowering.options import LowerOptions
from triune.coreai.room import require_room
from triune.graph.ane import Report as LayoutReport
from triune.graph.conversion.options import Layout, Precision
from triune.graph.conversion.prepare import Prepared, Report, prepare, silent, some, translated_failures
from triune.graph.conversion.problems import Problem, require_none
from triune.graph.conversion.saved import Saved
from triune.graph.conversion.shapes import InputShape, Range, inputs_of, listed
from triune.graph.conversion.sources import MAIN, Source, description_of
from triune.graph.fused import fuse
from triune.graph.passes.halve import Halve
from triune.graph.weight_files import WeightFile

if TYPE_CHECKING:
    from triune.coreai.lowering.interface import Interface

SOURCE_KEY = "triune.source"
"""The key of the asset's metadata that holds the sources' names, types and limits of shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered(Saved):
    """A saved asset.

    Attributes:
        functions: the names of the functions; a model with several stated shapes has one for each of them.
    """

    functions: tuple[str, ...]


def lower(model: ModelProto, path: Path, options: LowerOptions | None = None, *, report: Report = silent) -> Lowered:
    """Convert `model` to a function `main`: see `lower_functions`."""
    return lower_functions({MAIN: Source(model, options or LowerOptions())}, path, report=report)


def lower_functions(
    sources: Mapping[str, Source[LowerOptions]], path: Path, *, report: Report = silent, may_fuse: bool = True
) -> Lowered:
    """Convert models to functions of one program, which share equal weights, and save it.

    Args:
        sources: the models, by the function's name.
        path: where to save the asset; ends in .aimodel. An existing one is replaced.
        report: is called with a line of text for each step.
        may_fuse: whether Apple's compiler may fuse operations. If not, the program is slow; see `coreai.audit`.

    Raises:
        InvalidArgumentError: `path` does not end in .aimodel, or a model contradicts a given shape or itself.
        UnsupportedError: coreai-core is not installed, or nodes cannot be converted: one message names each with its
            reason and what to do.
    """
    if path.suffix != ".aimodel":
        raise InvalidArgumentError(f"'{path}' does not end in .aimodel")
    require_library()
    from triune.coreai.lowering.interface import interface_of

    layout = LayoutReport() if any(each.options.layout is Layout.ANE for each in sources.values()) else None
    with WeightFile() as file:
        prepared = _prepared(sources, layout, report, file)
        interfaces = {name: interface_of(each.model, sources[name].options) for name, each in prepared.items()}
        ladders = {name: ladder_of(each) for name, each in interfaces.items()}
        metadata = {name: _source(sources[name], interfaces[name]) for name in sources}
        report("writing the program")
        try:
            module = _write(sources, prepared, interfaces, may_fuse=may_fuse)
            report("saving the asset")
            _save(module, ladders, path, metadata, sources)
        except UnsupportedError:
            if not any(ladders.values()):
                raise
            # An operation was refused, perhaps since it needs fixed sizes. Write the program anew for each shape: in a
            # program that is written already, Core AI's library cannot fix sizes inside loops.
            report("writing the program for each shape")
            fixed = dict(_variants(sources, ladders))
            whole = _prepared(fixed, layout, silent, file)
            interfaces = {name: interface_of(each.model, fixed[name].options) for name, each in whole.items()}
            module = _write(fixed, whole, interfaces, may_fuse=may_fuse)
            _save(module, {}, path, metadata, fixed)
    functions = [each for name, ladder in ladders.items() for each in _names(name, ladder)]
    notes = [f"{name}: {note}" if len(sources) > 1 else note for name in sources for note in prepared[name].notes]
    return Lowered(path=path, functions=tuple(functions), layout=layout, notes=notes)


def _prepared(
    sources: Mapping[str, Source[LowerOptions]], layout: LayoutReport | None, tell: Report, file: WeightFile
) -> dict[str, Prepared]:
    return {name: _prepare(source, layout, tell, file) for name, source in sources.items()}


def _prepare(source: Source[LowerOptions], layout: LayoutReport | None, tell: Report, file: WeightFile) -> Prepared:
    """Convert a model to core ops, in the element types and the layout that its options ask for."""
    with translated_failures(source.model):
        options = source.options
        prepared = prepare(source.model, options, layout if options.layout is Layout.ANE else None, tell, file)
        model = prepared.model
        if options.precision is not Precision.FP32:
            model = Halve(options.keep_fp32, prepared.wide, file)(model)
        notes = [*prepared.notes]
        if prepared.traps:
            notes.append(
                "Core AI's interpreter ends its process where the integers of these nodes leave int32, and it is not "
                f"known whether they do: {some(prepared.traps)}"
            )
        # Fuse no patterns in the Neural Engine's layout (B, C, 1, S), in which their operations are split into parts.
        return replace(
            prepared, notes=tuple(notes), model=fuse(model, file=file) if options.layout is Layout.SOURCE else model
        )


def _write(
    sources: Mapping[str, Source[LowerOptions]],
    prepared: Mapping[str, Prepared],
    interfaces: Mapping[str, "Interface"],
    *,
    may_fuse: bool,
    is_located: bool = False,
) -> Any:
    """Write all functions into a module. When the module's context is left, Apple's library rewrites the module.

    Args:
        sources: the models, by the function's name.
        prepared: the same models in core ops.
        interfaces: the functions' inputs, outputs and states.
        may_fuse: see `lower_functions`.
        is_located: whether operations have the names of their nodes as MLIR's locations, for error messages. Saved
            programs have none.
    """
    from triune.coreai.library import authoring, is_silent, located, plain
    from triune.coreai.lowering.barriers import place_all_barriers, place_barriers
    from triune.coreai.lowering.program import FunctionWriter

    module = authoring.Module.create()
    problems: list[Problem] = []
    try:
        with is_silent(module), module:
            for name, each in prepared.items():
                is_packing, interface = sources[name].options.packs_weights, interfaces[name]
                writer = FunctionWriter(name, each.model, interface, is_packing=is_packing, is_located=is_located)
                writer.write()
                problems += [_in_function(name, problem, len(sources)) for problem in writer.problems]
            # Check inside the context: leaving it rewrites the module, which fails if a node could not be lowered.
            require_none(problems, "Core AI")
            (place_barriers if may_fuse else place_all_barriers)(module._mlir_module.body)
    except TriuneError:
        raise
    # MLIR's exceptions have no other common base class.
    except Exception as error:
        if not is_located:
            return _write(sources, prepared, interfaces, may_fuse=may_fuse, is_located=True)
        where = located(error)
        raise UnsupportedError(
            f"Core AI refuses the program{f' at {where}' if where else ''}: {plain(error)}; give fixed sizes with "
            "--shape, or leave the node out"
        ) from error
    return module


def _in_function(function: str, problem: Problem, num_functions: int) -> Problem:
    return problem if num_functions == 1 else Problem(f"{problem.node} of function '{function}'", problem.reason)


def _names(function: str, ladder: Ladder) -> list[str]:
    """The names of the functions that a function becomes: itself, or one for each of its shapes."""
    return [f"{function}_{key}" for key in ladder] or [function]


def _variants(
    sources: Mapping[str, Source[LowerOptions]], ladders: Mapping[str, Ladder]
) -> Iterator[tuple[str, Source[LowerOptions]]]:
    """Yield the name and source of each function, with the fixed shapes for which it is converted."""
    for name, source in sources.items():
        for variant, shapes in zip(_names(name, ladders[name]), ladders[name].values() or [{}], strict=True):
            yield variant, replace(source, options=with_shapes(source.options, shapes))


def _save(
    module: Any,
    ladders: Mapping[str, Ladder],
    asset: Path,
    metadata: Mapping[str, Any],
    sources: Mapping[str, Source[LowerOptions]],
) -> None:
    """Fix the sizes of the functions that have several shapes, and save the program.

    Raises:
        UnsupportedError: Core AI's library fails to fix sizes or to save.
        OSError: the disk has no room for the program.
    """
    from coreai.runtime import AIModelAssetMetadata

    from triune.coreai.library import authoring, plain

    kind: Any = AIModelAssetMetadata
    said = kind()
    said.model_description = description_of(sources.values())
    said.set_custom(SOURCE_KEY, metadata)
    if asset.exists():
        shutil.rmtree(asset)
    require_room(module, asset, [source.model for source in sources.values()])
    try:
        program = authoring.AIProgram(module)
        for name, ladder in ladders.items():
            if ladder:
                program.set_static_shape_config(name, ladder)
        program.save_asset(asset, said)
    # MLIR's exceptions have only `Exception` as common base class.
    except Exception as error:
        raise UnsupportedError(
            f"Core AI does not save the program, and names no node: {plain(error)}; sizes that are free in one place "
            f"and fixed in another may be the cause: give fixed sizes with --shape for {_free_inputs(sources)}"
        ) from error


def _free_inputs(sources: Mapping[str, Source[LowerOptions]]) -> str:
    """List the names of inputs with a free dimension."""
    free = [
        value.name
        for source in sources.values()
        for value in inputs_of(source.model.graph)
        if not all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    ]
    return listed(dict.fromkeys(free)) or "what the model computes"


def _source(source: Source[LowerOptions], interface: "Interface") -> dict[str, Any]:
    """What the asset's metadata say of a function, since its program does not: the element types in the ONNX model, and
    the limits of shapes.
    """
    from onnx import TensorProto

    def kinds(values: Any) -> dict[str, str]:
        return {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}

    limits = {feature.name: _limits(feature.given) for feature in interface.inputs if feature.given is not None}
    graph = source.model.graph
    return {
        "format": "onnx",
        "graph": graph.name,
        "inputs": kinds(graph.input),
        "outputs": kinds(graph.output),
        "limits": limits,
    }


def _limits(shape: InputShape) -> list[list[Any]]:
    return [[[dim.low, dim.high] if isinstance(dim, Range) else dim for dim in choice] for choice in shape.choices]
