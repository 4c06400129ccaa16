"""Read a model, optimize it, and write it atomically."""

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from triune.api.conversions import coreai_to_onnx, coreml_to_onnx
from triune.api.custom import BodyCheck, with_custom_ops
from triune.api.model_folders import model_in
from triune.api.shapes import Shape, input_shape
from triune.api.staging import publish, staged, write_text
from triune.api.unit_names import named_units
from triune.core.datatypes import Array
from triune.core.disk import writing
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.units import Unit
from triune.graph.conversion.prepare import silent
from triune.graph.custom import CustomOpsGiven, read_custom_ops
from triune.graph.custom.foreign import require_defined
from triune.graph.load import load
from triune.graph.optimizing.level import Level
from triune.graph.optimizing.report import PassReport, op_counts
from triune.graph.optimizing.run import Optimized
from triune.graph.optimizing.run import optimize as optimize_graph
from triune.graph.optimizing.save import save
from triune.graph.verify import OutputVerdict
from triune.graph.weight_files import WeightFile

LevelName: TypeAlias = Literal["O0", "O1", "O2", "O3"]
UnitName: TypeAlias = Literal["cpu", "amx", "gpu", "ane"]

_PROGRAMS = (".mlpackage", ".mlmodel", ".mlmodelc", ".aimodel")


@dataclass(frozen=True, slots=True)
class Optimization:
    """The result of an optimization.

    Attributes:
        path: the file that was written.
        level: the level.
        unit: the unit for which the model was optimized.
        num_nodes_before: the source's nodes, with those of subgraphs and of inlined functions.
        num_nodes_after: the nodes of the result.
        passes: the changes of each pass that changed something, and the passes that were left out, with the reason.
        idle: the passes that found nothing to do.
        outputs: how far each output of the result differs from the source's; empty if nothing was compared.
        not_compared: why nothing was compared, with `force`; "" if the outputs were compared.
        notes: other notes for the user.
    """

    path: Path
    level: Level
    unit: Unit
    num_nodes_before: int
    num_nodes_after: int
    passes: Sequence[PassReport]
    idle: Sequence[str]
    outputs: Sequence[OutputVerdict]
    not_compared: str
    notes: Sequence[str]


def optimize(
    source: Path | str,
    target: Path | str,
    *,
    level: LevelName | Level = "O2",
    unit: UnitName | Unit = "cpu",
    shapes: Mapping[str, Shape] | None = None,
    inputs: Mapping[str, Array] | None = None,
    custom_ops: CustomOpsGiven = (),
    force: bool = False,
    page: Path | str | None = None,
    report: Callable[[str], None] | None = None,
) -> Optimization:
    """Optimize a model, and write it as ONNX.

    The result is compared with the source after each pass, on random inputs and on inputs that reveal typical faults. A
    pass whose result differs is left out, and listed with the reason.

    Args:
        source: a .onnx, .mlpackage, .mlmodelc or .aimodel, or a model's folder in a repository.
        target: the .onnx file to write; an existing one is replaced.
        level: "O0" makes the model valid and infers shapes; "O1" is exact; "O2" is equal up to the rounding of fp32;
            "O3" rewrites it for `unit`.
        unit: the unit that will compute the model.
        shapes: sizes to fix, for inputs with free dimensions; these stay free otherwise.
        inputs: inputs to compare on, by name; missing ones are generated.
        custom_ops: custom operators (`custom_op`), or files that define them. Those with a body become ONNX's
            operators; those that numpy computes stay in the result.
        force: whether to write the result even if it could not be compared, or differs from the source.
        page: the path of an HTML page to write, with the graph before and after.
        report: called with a message at each pass.

    Raises:
        NotFoundError: there is no such source.
        InvalidArgumentError: the source is broken, a level, unit, shape or input is wrong, or the target cannot be
            written.
        UnsupportedError: the result would differ from the source or cannot be compared with it, and `force` is not set;
            or an operator is not known.
    """
    # Imported only if a page is asked for: the module reads a template of some kilobytes.
    from triune.api.optimizing.page import page_of

    source, target = model_in(Path(source)), Path(target)
    chosen, on = level_of(level), unit if isinstance(unit, Unit) else named_units([unit])[0]
    if target.suffix != ".onnx":
        raise InvalidArgumentError(f"an optimized model is ONNX: '{target.name}' must end in .onnx")
    if not source.exists():
        raise NotFoundError(f"there is no '{source}'")
    tell = report or silent
    fixed = {name: input_shape(name, shape) for name, shape in (shapes or {}).items()}
    ops, check = read_custom_ops(custom_ops), BodyCheck(inputs or {}, fixed, is_asked=False)
    with (
        writing(target),
        _as_onnx(source, tell) as path,
        WeightFile() as file,
        staged(target) as written,
        with_custom_ops(path, ops, "an optimization", check, tell, keeps_numpy=True) as resolved,
    ):
        model = load(resolved.path)
        require_defined(model, ops, "an optimization")
        done = optimize_graph(
            model, chosen, on, file, shapes=fixed, inputs=inputs or {}, ops=ops, force=force, tell=tell
        )
        tell("writing")
        notes = [*resolved.notes, *done.notes]
        if save(done.model, written):
            notes.append(f"its weights are beyond 2 GiB, in the file '{target.name}.data' beside it")
        result = _optimization(target, chosen, on, done, notes)
        if page is not None:
            write_text(Path(page), page_of(source.name, result, done))
        publish(written, target)
    return result


def _optimization(target: Path, level: Level, unit: Unit, done: Optimized, notes: Sequence[str]) -> Optimization:
    before, after = (op_counts(each).total() for each in (done.before, done.model))
    return Optimization(
        target, level, unit, before, after, done.passes, done.idle, done.outputs, done.not_compared, tuple(notes)
    )


@contextmanager
def _as_onnx(source: Path, tell: Callable[[str], None]) -> Generator[Path]:
    """A context with the path of the model as an ONNX file. A program is converted to a file that exists until the
    context ends.
    """
    if source.suffix == ".onnx":
        yield source
        return
    if source.suffix not in _PROGRAMS:
        raise InvalidArgumentError(
            f"'{source.name}' is not optimized: give a .onnx, .mlpackage, .mlmodelc or .aimodel; convert other models "
            "to .onnx first (triune convert)"
        )
    with tempfile.TemporaryDirectory(prefix="triune-optimize-") as folder:
        path = Path(folder) / "model.onnx"
        raised = coreai_to_onnx if source.suffix == ".aimodel" else coreml_to_onnx
        raised(source, path, None, tell, None)
        yield path


def level_of(level: str | Level) -> Level:
    """The level with this name. Raises InvalidArgumentError if there is no such level."""
    try:
        return Level(level)
    except ValueError:
        known = ", ".join(f"'{each.value}'" for each in Level)
        raise InvalidArgumentError(f"there is no level {level!r}; there are {known}") from None
