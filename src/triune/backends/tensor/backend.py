"""The backend of tensor models. It configures, places, compiles and measures them, and creates workers and a
dispatcher.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from triune.backends.attempt import Attempt
from triune.backends.gate.gate import Judged, leave_out
from triune.backends.machine_backend import MachineBackend
from triune.backends.served_times import digests_of
from triune.backends.share import share_of
from triune.backends.tensor.build import TensorBuild, placement_of
from triune.backends.tensor.compile import WarmUp, compile_all
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.cut.make import Made, make_cut
from triune.backends.tensor.executable import SharedExecutable
from triune.backends.tensor.objective import objective_shortfall
from triune.backends.tensor.quick import is_quick
from triune.backends.tensor.samples import samples_of, scores_of
from triune.config.configure import Source, configure
from triune.config.limits import limits_of
from triune.config.load_key import digest_of
from triune.config.metrics import new_statistics
from triune.config.model_config import ModelConfig
from triune.config.objective import objective_of
from triune.config.placement import Recipe, place
from triune.config.turns import weight_of
from triune.core.placement import Placement
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.scheduling.call_times import CallTimes
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.kept_costs import KeptCosts
from triune.scheduling.models import Models
from triune.scheduling.runner import TensorRunner
from triune.scheduling.segments.runner import SegmentsRunner
from triune.scheduling.worker import QuickWorker, ThreadWorker

_log = logging.getLogger(__name__)


class TensorBackend(MachineBackend):
    """The `Backend` of models that a runtime compiles from a file."""

    supports: frozenset[str] = frozenset()

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Complete the configuration of a version: see `Backend.configure`."""
        return configure(source, version, self._machine, self._settings.completion)

    def build(self, source: Source, version: int, previous: TensorBuild | None, attempt: Attempt) -> TensorBuild:
        """Configure, place, compile and measure a version: see `Backend.build`.

        If the files are the same as for `previous`, executables with equal recipes are reused, so that a change of the
        config or of the number of instances compiles only new recipes.
        """
        attempt.check()
        started_ns = self._clock.now_ns()
        spare = previous.executables if previous is not None and previous.has_files_of(source) else ()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        with ExitStack() as undo:
            config = self.configure(source, version)
            placed, recipes = self._place(config, source, attempt, undo)
            spare = (*placed.spare, *spare)
            executables = compile_all(
                placed.config, source.folder, recipes, self._machine, spare=spare, attempt=attempt, undo=undo
            )
            known = _known_verdicts(previous, {each.unit for each in executables if each in spare})
            measured = self._measure(placed, executables, source, version, known, attempt)
            attempt.check()
            undo.pop_all()
        # `measured.executables` are in use from now on, so close only the others.
        for each in (*placed.spare, *(each for each in executables if each not in measured.executables)):
            each.close()
        return TensorBuild(
            version,
            measured.config,
            source,
            measured.executables,
            measured.verdicts,
            measured.is_inline,
            self._clock.now_ns() - started_ns,
            placed.cut,
            emulated=self._machine.emulated(measured.config.units),
            placement=measured.placement,
            kept=self._kept(measured, source, version),
        )

    def _place(
        self, config: ModelConfig, source: Source, attempt: Attempt, undo: ExitStack
    ) -> tuple[Made, Sequence[Recipe]]:
        """Decide where a model computes: on the units of its config, or as its plan says.

        Returns:
            the result of the plan, if the config has one, and the recipes to compile. A model that is divided into
            segments has no recipes: its segments are compiled already, since their times decide whether it is divided.
        """
        if config.plan is None:
            return Made(config), place(config, self._machine)
        made = make_cut(config, config.plan, source.folder, self._machine, attempt, undo)
        for note in made.notes:
            _log.info("model '%s': %s", config.name, note)
        return made, () if made.cut is not None else place(made.config, self._machine)

    def _measure(
        self,
        placed: Made,
        executables: Sequence[SharedExecutable],
        source: Source,
        version: int,
        known: Mapping[Unit, Verdict],
        attempt: Attempt,
    ) -> "_Measured":
        """Compare the units' answers, and measure the units' speed. `known` has the verdicts on reused executables,
        which are not compared again.
        """
        config = placed.config
        if placed.cut is not None:
            WarmUp(config, source.folder, attempt).run(placed.cut.lend()[0])
            return _measured_cut(placed, placed.cut)
        key, samples = self._keys.of(source, version), samples_of(config, source.folder)
        verdicts = self._gate.judge(Judged(config, config.path, samples, key, scores_of(config), known), executables)
        units, kept = leave_out(verdicts, config, executables)
        config = replace(config, units=units) if units != config.units else config
        is_inline = is_quick(config, kept[0], self._clock)
        shortfall = objective_shortfall(config, source.folder, kept, self._clock)
        notes = (*placed.notes, *([shortfall] if shortfall else []))
        return _Measured(config, tuple(kept), verdicts, is_inline, placement_of(config, kept, verdicts, notes))

    def assemble(self, build: TensorBuild, models: Models) -> Servable:
        """Create workers and a dispatcher: see `Backend.assemble`. A tensor model calls no other model."""
        config = build.config
        statistics = new_statistics(config.message, has_distributions=self._settings.has_distributions)
        statistics.verdicts.update(build.verdicts)
        kind = QuickWorker if build.is_inline else ThreadWorker
        limits = limits_of(config.parameters, self._settings.limits)
        accounts = self._accounts(build, config.units if build.cut else (each.unit for each in build.executables))
        runners: list[TensorRunner] = [TensorRunner(each, self._clock) for each in build.executables]
        if build.cut is not None:
            segments = build.cut.open(lambda unit: share_of(config, unit, self._clock, self._arbiter))
            runners += [SegmentsRunner(each, self._clock, accounts) for each in segments]
        workers: list[QuickWorker | ThreadWorker] = []
        try:
            for index, runner in enumerate(runners):
                name = f"{config.name}-{build.version}-{runner.unit.value}-{index}"
                workers.append(kind(runner, name))
        except NoThreadError:
            for worker in workers:
                worker.stop()
            raise
        return Dispatcher(
            config.name,
            build.version,
            replace(config.batching, queue_limits=limits.queue),
            tuple(config.outputs),
            workers,
            statistics,
            self._clock,
            build.emulated,
            run_limit_seconds=limits.run_seconds,
            accounts=accounts,
            power=self._power,
            arbiter=self._arbiter,
            weight=weight_of(config.message),
            objective_ns=objective_of(config.parameters),
            kept=dict(zip(workers, build.kept, strict=False)),
            times=self._call_times(build),
        )

    def _call_times(self, build: TensorBuild) -> CallTimes | None:
        """Where the times of the version's calls are recorded; None if they are not."""
        if self._times is None or build.cut is not None or (digests := digests_of(build)) is None:
            return None
        return CallTimes(partial(self._times.keep, digests))

    def _kept(self, measured: "_Measured", source: Source, version: int) -> Sequence[KeptCosts]:
        """Where the times of each executable's batches are stored; nothing is stored for a model that runs on the event
        loop's thread, or that is divided into segments and has no executables of its own.
        """
        if self._costs is None or measured.is_inline:
            return ()
        key, folder = self._keys.of(source, version), self._costs
        return [KeptCosts(folder / f"{digest_of([key, repr(each.recipe)])}.json") for each in measured.executables]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured of a compiled model when it was loaded.

    Attributes:
        config: its configuration, with the units whose answers are right.
        executables: the executables on these units; empty if the model is divided into segments.
        verdicts: how far the answers of each unit differ from those of `cpu`.
        is_inline: whether the model is so fast that the event loop's thread runs it.
        placement: where it computes, and why.
    """

    config: ModelConfig
    executables: tuple[SharedExecutable, ...]
    verdicts: Mapping[Unit, Verdict]
    is_inline: bool
    placement: Placement


def _measured_cut(made: Made, cut: Cut) -> _Measured:
    """Collect what was measured when the plan of a model was made, for a model that is divided into segments."""
    config, verdict = made.config, made.verdict
    assert config.plan is not None
    verdicts = {} if verdict is None else {unit: verdict for unit in cut.units if unit is not Unit.CPU}
    placement = Placement(config.plan.text, is_cut=True, segments=made.segments, notes=made.notes)
    return _Measured(config, (), verdicts, False, placement)


def _known_verdicts(previous: TensorBuild | None, reused: Collection[Unit]) -> Mapping[Unit, Verdict]:
    """The verdicts of the previous build for the units whose executables are reused."""
    before = previous.verdicts if previous is not None else dict[Unit, Verdict]()
    return {unit: verdict for unit, verdict in before.items() if unit in reused}
