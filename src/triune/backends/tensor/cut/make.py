"""Cut a model into segments as its config says: plan the segments, compile them, check their outputs, and compare them
with the whole model on one unit.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from triune.backends.attempt import Attempt
from triune.backends.gate.compare import compare as compare_answers
from triune.backends.tensor.cut.compiled import Compiled, StretchCompiler, joined
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.cut.graph import CutGraph, cut_graph
from triune.backends.tensor.cut.pays import Comparison, compare, whole_on
from triune.backends.tensor.cut.stretches import Stretch, stretches_of
from triune.backends.tensor.executable import SharedExecutable
from triune.backends.tensor.samples import scores_of
from triune.config.model_config import ModelConfig
from triune.config.parameters import read_options, tolerance_of
from triune.config.plan import PlanRequest
from triune.core.errors import UnsupportedError
from triune.core.placement import PlacedSegment
from triune.core.scratch import HeldFolder
from triune.core.units import Presence, Unit
from triune.core.verdict import Verdict
from triune.planning.plan import Goal
from triune.runtimes.machine import Machine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """The result of making a plan's segments.

    Attributes:
        config: the configuration, with the units that the model runs on.
        cut: the segments; None if the whole model runs on one unit.
        spare: the executables of the whole model that were measured, for reuse by the build; the caller owns them.
        segments: where each segment computes; empty if the model is not cut.
        verdict: the error of the cut model's outputs; None if they were not compared.
        notes: why the model is or is not cut, with the figures.
    """

    config: ModelConfig
    cut: Cut | None = None
    spare: tuple[SharedExecutable, ...] = ()
    segments: tuple[PlacedSegment, ...] = ()
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()


def make_cut(
    config: ModelConfig, request: PlanRequest, folder: Path, machine: Machine, attempt: Attempt, undo: ExitStack
) -> Made:
    """Cut a model as its plan says, unless the cut is not faster.

    Args:
        config: the model's configuration.
        request: the plan that the config requests.
        folder: the model's folder, for its warm-up files.
        machine: the machine with the runtimes.
        attempt: cancels the build.
        undo: receives callbacks that free resources if the build fails.

    Raises:
        TriuneError: the plan is impossible, or no unit runs a part of the model.
        UnavailableError: the build was cancelled.
    """
    runtime = machine.runtimes[config.backend]
    signature = runtime.inspect(config.path, read_options(config.parameters, runtime, config.backend))
    with cut_graph(config, folder, machine) as graph, ExitStack() as mine:
        attempt.check()
        stretches = joined(stretches_of(graph, config, request, machine))
        if len(stretches) == 1:
            whole = whole_on(stretches[0].choice.unit, graph, config, machine, attempt)
            if isinstance(whole, SharedExecutable):
                undo.callback(whole.close)
                return replace(_whole(config, stretches[0]), spare=(whole,))
            _log.info("model '%s': %s", config.name, whole)
        is_pipeline = request.goal is Goal.THROUGHPUT
        held = HeldFolder()
        mine.callback(held.remove)
        # Divide the cores among the segments of a pipeline, since these compute at the same time.
        num_threads = max(1, machine.num_cores // (len(stretches) if is_pipeline else 1))
        compiler = StretchCompiler(graph, config, held.path, num_threads, machine, attempt)
        mine.callback(compiler.close)
        maker = _Maker(graph, config, machine, compiler)
        compiled = maker.settled(stretches)
        if len(compiled) == 1:
            return _whole(config, compiled[0].stretch)
        compiler.take(compiled)
        mine.pop_all()
    cut = Cut(signature, compiled, held, is_pipeline=is_pipeline)
    made = undo.enter_context(ExitStack())
    made.callback(cut.close)
    comparison, notes = _compared(cut, graph, config, request, machine, attempt)
    if comparison is not None:
        if not comparison.is_worth_it and not request.stretches:
            best, _ = comparison.wholes[0]
            comparison.close(but=best)
            made.pop_all().close()
            undo.callback(best.close)
            notes = (*notes, f"not cut, since '{best.unit.value}' alone is faster; {_plan_of(compiled)}")
            return Made(replace(config, units=(best.unit,)), spare=(best,), notes=notes)
        comparison.close()
    rows = tuple(_row(each, graph) for each in compiled)
    return Made(replace(config, units=cut.units), cut, segments=rows, verdict=maker.verdict, notes=notes)


class _Maker:
    """Compiles the segments of a model, and checks their joint outputs. While these are wrong, the segment with the
    largest error moves to another unit.

    Attributes:
        verdict: the error of the last outputs, compared with the whole model; None if they were not compared.
    """

    def __init__(self, graph: CutGraph, config: ModelConfig, machine: Machine, compiler: StretchCompiler) -> None:
        self._graph = graph
        self._config = config
        self._machine = machine
        self._compiler = compiler
        self.verdict: Verdict | None = None

    def settled(self, stretches: Sequence[Stretch]) -> list[Compiled]:
        waiting = list(stretches)
        while True:
            compiled = self._compiler.compile(waiting)
            movable = [each for each in compiled if each.verdict is not None and len(each.stretch.choices) > 1]
            excess = self._excess(compiled)
            if len(compiled) == 1 or not excess or not movable:
                return compiled
            worst = max(movable, key=lambda each: each.verdict.relative if each.verdict is not None else 0.0)
            why = f"together {excess}, and the segment on {worst.stretch.choice} has the largest error"
            _log.info("model '%s': %s", self._config.name, why)
            waiting = joined([each.stretch.moved(why) if each is worst else each.stretch for each in compiled])

    def _excess(self, compiled: Sequence[Compiled]) -> str:
        """Explain why the outputs of all segments together are wrong; "" if they are right, or if the model draws
        random numbers.
        """
        if self._graph.is_random:
            return ""
        values = dict(self._graph.sample)
        for each in compiled:
            names = [spec.name for spec in each.executable.signature.inputs if spec.name in values]
            values.update(each.executable.run({name: values[name] for name in names}, list(each.piece.outputs)))
        expected = {name: self._graph.values[name] for name in self._config.outputs}
        tolerances = {each.executable.precision: self._tolerance(each) for each in compiled}
        precision = max(tolerances, key=lambda each: tolerances[each])
        self.verdict = compare_answers(
            expected,
            values,
            precision=precision,
            tolerance=tolerances[precision],
            scores=scores_of(self._config),
        )
        return self.verdict.excess

    def _tolerance(self, compiled: Compiled) -> float:
        return tolerance_of(self._config.parameters, compiled.executable.precision)


def _whole(config: ModelConfig, stretch: Stretch) -> Made:
    """Make the result of a plan that runs the whole model on one unit."""
    # If the plan asks for fp32, run the model on `cpu`: the config of a whole model names units, and each unit computes
    # in its own precision.
    unit = Unit.CPU if stretch.choice.is_fp32 else stretch.choice.unit
    predicted = "" if stretch.predicted_ms is None else f", predicted {stretch.predicted_ms:.3g} ms"
    note = f"not cut, since the whole belongs on '{unit.value}'{predicted}"
    return Made(replace(config, units=(unit,)), notes=(*stretch.notes, note))


def _compared(
    cut: Cut, graph: CutGraph, config: ModelConfig, request: PlanRequest, machine: Machine, attempt: Attempt
) -> tuple[Comparison | None, tuple[str, ...]]:
    if emulated := machine.emulated(cut.units):
        names = ", ".join(sorted(unit.value for unit in emulated))
        return None, (f"not compared with single units: {names} is emulated here, and its time says nothing",)
    if request.goal is Goal.ENERGY:
        return None, ("not compared with single units: the plan is for energy, which a load does not measure",)
    units = request.units or tuple(unit for unit in Unit if _can_run(unit, config, machine))
    comparison = compare(cut, units, graph, config, machine, attempt)
    note = str(comparison)
    if request.stretches and not comparison.is_worth_it:
        note = f"{note}; the cut is kept, since the config names its stretches"
    return comparison, (note,)


def _can_run(unit: Unit, config: ModelConfig, machine: Machine) -> bool:
    if machine.status(unit).presence is not Presence.PRESENT:
        return False
    try:
        machine.runtime_for(config.backend, unit)
    except UnsupportedError:
        return False
    return True


def _plan_of(compiled: Sequence[Compiled]) -> str:
    parts = ", ".join(f"{len(each.piece.nodes)} on {each.executable.unit.value} {each.ms:.3g} ms" for each in compiled)
    return f"operations of the cut: {parts}"


def _row(compiled: Compiled, graph: CutGraph) -> PlacedSegment:
    stretch, nodes, executable = compiled.stretch, compiled.piece.nodes, compiled.executable
    names = [graph.model.graph.node[at].name for at in nodes]
    return PlacedSegment(
        executable.unit,
        executable.recipe.runtime,
        executable.precision,
        executable.report,
        requested=stretch.requested,
        planned=stretch.planned,
        num_ops=len(nodes),
        first=names[0] if names else "",
        last=names[-1] if names else "",
        predicted_ms=stretch.predicted_ms,
        measured_ms=compiled.ms,
        error=None if compiled.verdict is None else compiled.verdict.largest,
        passed_bytes=sum(graph.values[name].nbytes for name in compiled.piece.outputs if name in graph.values),
        notes=stretch.notes,
    )
