"""The backend of tensor models. It configures, places, compiles and measures them, and makes workers and dispatcher."""

import logging
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace

from triune.backends.attempt import Attempt
from triune.backends.gate.gate import Judged, leave_out
from triune.backends.machine_backend import MachineBackend
from triune.backends.tensor.build import TensorBuild, placement_of
from triune.backends.tensor.compile import WarmUp, compile_all
from triune.backends.tensor.cut.cut import Cut
from triune.backends.tensor.cut.make import Made, make_cut
from triune.backends.tensor.objective import objective_shortfall
from triune.backends.tensor.quick import is_quick
from triune.backends.tensor.samples import samples_of, scores_of
from triune.config.configure import Source, configure
from triune.config.limits import limits_of
from triune.config.metrics import new_statistics
from triune.config.model_config import ModelConfig
from triune.config.objective import objective_of
from triune.config.placement import place
from triune.config.turns import weight_of
from triune.core.placement import Placement
from triune.core.servable import Servable
from triune.core.threads import NoThreadError
from triune.core.units import Unit
from triune.core.verdict import Verdict
from triune.scheduling.dispatcher import Dispatcher
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
        """Configure, compile, warm up and measure a version: see `Backend.build`.

        If its files are those of `previous`, executables with equal recipes are reused, so that a change of the config
        or of the number of instances compiles only new recipes.
        """
        attempt.check()
        started_ns = self._clock.now_ns()
        spare = previous.executables if previous is not None and previous.has_files_of(source) else ()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        with ExitStack() as undo:
            config = self.configure(source, version)
            made = Made(config)
            if config.plan is not None:
                made = make_cut(config, config.plan, source.folder, self._machine, attempt, undo)
                config, spare = made.config, (*made.spare, *spare)
                for note in made.notes:
                    _log.info("model '%s': %s", config.name, note)
            if made.cut is not None:
                WarmUp(config, source.folder, attempt).run(made.cut.lend()[0])
                attempt.check()
                undo.pop_all()
                return self._cut_build(made, made.cut, source, version, started_ns)
            recipes = place(config, self._machine)
            executables = compile_all(
                config, source.folder, recipes, self._machine, spare=spare, attempt=attempt, undo=undo
            )
            reused = {each.unit for each in executables if each in spare}
            verdicts = self._gate.judge(self._judged(config, source, version, previous, reused), executables)
            units, kept = leave_out(verdicts, config, executables)
            config = replace(config, units=units) if units != config.units else config
            is_inline = is_quick(config, kept[0], self._clock)
            shortfall = objective_shortfall(config, source.folder, kept, self._clock)
            attempt.check()
            undo.pop_all()
        # What was measured for the plan's sake is held by the executables where they share it.
        for each in (*made.spare, *(each for each in executables if each not in kept)):
            each.close()
        emulated = self._machine.emulated(config.units)
        return TensorBuild(
            version,
            config,
            source,
            tuple(kept),
            verdicts,
            is_inline,
            self._clock.now_ns() - started_ns,
            emulated=emulated,
            placement=placement_of(config, kept, verdicts, (*made.notes, *([shortfall] if shortfall else []))),
        )

    def _judged(
        self, config: ModelConfig, source: Source, version: int, previous: TensorBuild | None, reused: Collection[Unit]
    ) -> Judged:
        """What the gate needs to compare units. For those whose executables are reused, verdicts of `previous` hold."""
        before = previous.verdicts if previous is not None else dict[Unit, Verdict]()
        return Judged(
            config,
            config.path,
            samples_of(config, source.folder),
            self._keys.of(source, version),
            scores_of(config),
            {unit: verdict for unit, verdict in before.items() if unit in reused},
        )

    def _cut_build(self, made: Made, cut: Cut, source: Source, version: int, started_ns: int) -> TensorBuild:
        verdict, plan = made.verdict, made.config.plan
        assert plan is not None
        verdicts = {} if verdict is None else {unit: verdict for unit in cut.units if unit is not Unit.CPU}
        return TensorBuild(
            version,
            made.config,
            source,
            (),
            verdicts,
            False,
            self._clock.now_ns() - started_ns,
            cut,
            placement=Placement(plan.text, is_cut=True, segments=made.segments, notes=made.notes),
            emulated=self._machine.emulated(cut.units),
        )

    def assemble(self, build: TensorBuild, models: Models) -> Servable:
        """Make workers and dispatcher: see `Backend.assemble`. A tensor model calls no other model."""
        config = build.config
        statistics = new_statistics(config.message, has_distributions=self._settings.has_distributions)
        statistics.verdicts.update(build.verdicts)
        kind = QuickWorker if build.is_inline else ThreadWorker
        limits = limits_of(config.parameters, self._settings.limits)
        accounts = self._accounts(build, config.units if build.cut else (each.unit for each in build.executables))
        runners: list[TensorRunner] = [TensorRunner(each, self._clock) for each in build.executables]
        if build.cut is not None:
            runners += [SegmentsRunner(each, self._clock, accounts) for each in build.cut.open()]
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
        )
