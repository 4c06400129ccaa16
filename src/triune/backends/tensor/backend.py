"""The backend of tensor models: configured, compiled, warmed up, measured, and given workers and a dispatcher."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from triune.backends.attempt import Attempt
from triune.backends.tensor.build import TensorBuild, describe_excess
from triune.backends.tensor.measure import UnitError, is_quick, unit_error
from triune.backends.tensor.shared import Recipe, SharedExecutable
from triune.config.configure import Source, configure
from triune.config.honour import BACKENDS_WITH_GRAPH_LEVEL
from triune.config.limits import limits_of
from triune.config.metrics import first_response_buckets_ms
from triune.config.model_config import ModelConfig
from triune.config.placement import (
    Machine,
    options_of,
    read_options,
    runtime_for,
    threads_per_executable,
    tolerance_of,
)
from triune.config.samples import warmup_inputs
from triune.core.clock import Clock
from triune.core.distributions import Distributions, Histogram
from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.core.runtime import Runtime
from triune.core.servable import Servable
from triune.core.statistics import ModelStatistics
from triune.core.threads import NoThreadError
from triune.core.units import Presence, Unit
from triune.hosting import HostedExecutable
from triune.scheduling.dispatcher import Dispatcher
from triune.scheduling.models import Models
from triune.scheduling.worker import QuickWorker, ThreadWorker

_log = logging.getLogger(__name__)

TryFirst: TypeAlias = Callable[[Source, int, Attempt], None]
"""Told of a version before it is built. What it raises is raised, and nothing is built."""


class TensorBackend:
    """The `Backend` of models that a runtime compiles from a file."""

    honours: frozenset[str] = frozenset()

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        *,
        has_distributions: bool = False,
        try_first: TryFirst | None = None,
    ) -> None:
        """Args:
        machine: the runtimes and units to build for.
        clock: measures.
        has_distributions: versions keep how their latencies and sizes are distributed.
        try_first: see there.
        """
        self._try_first = try_first
        self.machine = machine
        self._clock = clock
        self._has_distributions = has_distributions

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """See `Backend`: none."""
        del source
        return {}

    def configure(self, source: Source, version: int) -> ModelConfig:
        """See `Backend`."""
        return configure(source, version, self.machine)

    def build(
        self, source: Source, version: int, previous: TensorBuild | None = None, attempt: Attempt | None = None
    ) -> TensorBuild:
        """See `Backend`.

        Where the version's files are those of `previous`, executables of the same recipe are taken over, so that a
        change of the config or of the instance count compiles only what is new.
        """
        started_ns = self._clock.now_ns()
        attempt = attempt or Attempt()
        if self._try_first is not None:
            self._try_first(source, version, attempt)
        config = self.configure(source, version)
        with ExitStack() as stack:
            spare = list(previous.executables) if previous and previous.has_files_of(source) else []
            executables: list[SharedExecutable] = []
            old_units: set[Unit] = set()
            for recipe in self._recipes(config):
                reused = next((each for each in spare if each.recipe == recipe), None)
                if reused is not None:
                    spare.remove(reused)
                    old_units.add(recipe.unit)
                executable = reused.hold() if reused else self._compile(config.path, recipe)
                stack.callback(executable.close)
                executables.append(executable)
                if not reused:
                    attempt.add(executable)
                    self._warm_up(executable, config, source.folder, attempt)
            errors = previous.unit_errors if previous else {}
            unit_errors = {unit: errors[unit] for unit in config.units if unit in old_units and unit in errors}
            measured = self._measure_errors(config, source.folder, executables, set(unit_errors))
            unit_errors |= {unit: each.largest for unit, each in measured.items()}
            left_out = {unit: each.excess for unit, each in measured.items() if each.excess}
            dropped = [each for each in executables if each.unit in left_out]
            config, executables = _leave_out(left_out, config, executables)
            is_inline = is_quick(config, executables[0], self._clock)
            stack.pop_all()
        for each in dropped:
            each.close()
        duration_ns = self._clock.now_ns() - started_ns
        emulated = frozenset(unit for unit in config.units if self.machine.status(unit).presence is Presence.EMULATED)
        return TensorBuild(
            version,
            config,
            source,
            tuple(executables),
            unit_errors,
            is_inline,
            duration_ns,
            left_out,
            emulated=emulated,
        )

    def assemble(self, build: TensorBuild, models: Models) -> Servable:
        """See `Backend`. A tensor model calls no other."""
        config = build.config
        statistics = ModelStatistics(unit_errors=dict(build.unit_errors))
        if self._has_distributions:
            statistics.distributions = Distributions(Histogram(first_response_buckets_ms(config.message)))
        kind = QuickWorker if build.is_inline else ThreadWorker
        limits = limits_of(config.parameters, self.machine.limits)
        workers: list[QuickWorker | ThreadWorker] = []
        try:
            for index, executable in enumerate(build.executables):
                name = f"{config.name}-{build.version}-{executable.unit.value}-{index}"
                workers.append(kind(executable, name, self._clock))
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
        )

    def _recipes(self, config: ModelConfig) -> Iterator[Recipe]:
        num_threads = threads_per_executable(len(config.units), config.num_instances, self.machine.num_cores)
        for unit in config.units:
            recipe = self._recipe(config, unit, num_threads)
            yield from [recipe] * config.num_instances

    def _recipe(self, config: ModelConfig, unit: Unit, num_threads: int) -> Recipe:
        runtime = runtime_for(config.backend, unit, self.machine)
        options = _options(config, runtime)
        return Recipe(runtime.name, unit, num_threads, tuple(sorted(options.items())), config.has_own_process)

    def _compile(self, path: Path, recipe: Recipe) -> SharedExecutable:
        runtime = self.machine.runtimes[recipe.runtime]
        options = dict(recipe.options)
        load = functools.partial(runtime.load, path, unit=recipe.unit, num_threads=recipe.num_threads, options=options)
        if not recipe.has_own_process:
            return SharedExecutable(load(), recipe)
        return SharedExecutable(HostedExecutable(load, f"'{path}' on '{recipe.unit.value}'"), recipe)

    def _warm_up(self, executable: SharedExecutable, config: ModelConfig, folder: Path, attempt: Attempt) -> None:
        for sample in config.warmup:
            inputs = warmup_inputs(sample, config, folder)
            for _ in range(sample.num_runs):
                attempt.check()
                try:
                    executable.run(inputs, list(config.outputs))
                except TriuneError as error:
                    raise type(error)(f"warm-up sample '{sample.name}' failed: {error}") from error

    def _measure_errors(
        self,
        config: ModelConfig,
        folder: Path,
        executables: Sequence[SharedExecutable],
        known: set[Unit],
    ) -> dict[Unit, UnitError]:
        """The errors of the units that are neither cpu nor known; what cannot be measured is logged and passed over."""
        units = [unit for unit in config.units if unit is not Unit.CPU and unit not in known]
        if not units:
            return {}
        tolerances = {
            each.unit: tolerance_of(config.parameters, each.precision) for each in executables if each.unit in units
        }
        errors: dict[Unit, UnitError] = {}
        truth = next((each for each in executables if each.unit is Unit.CPU), None)
        with ExitStack() as stack:
            try:
                if truth is None:
                    truth = self._compile(config.path, self._recipe(config, Unit.CPU, self.machine.num_cores))
                    stack.callback(truth.close)
                for unit in units:
                    executable = next(each for each in executables if each.unit is unit)
                    errors[unit] = unit_error(config, folder, truth, executable, tolerances[unit])
            except (InvalidArgumentError, UnsupportedError) as error:
                missing = ", ".join(unit.value for unit in units if unit not in errors)
                _log.warning("model '%s': error of %s against cpu is unavailable: %s", config.name, missing, error)
        return errors


def _leave_out(
    left_out: Mapping[Unit, str], config: ModelConfig, executables: Sequence[SharedExecutable]
) -> tuple[ModelConfig, list[SharedExecutable]]:
    """The config and the executables without the units whose answers are wrong.

    Raises:
        UnsupportedError: no unit is left.
    """
    if not left_out:
        return config, list(executables)
    for unit, excess in left_out.items():
        _log.warning("model '%s' is not served on %s: %s", config.name, unit.value, describe_excess(unit, excess))
    units = tuple(unit for unit in config.units if unit not in left_out)
    if not units:
        reasons = "; ".join(describe_excess(unit, excess) for unit, excess in left_out.items())
        raise UnsupportedError(reasons)
    return replace(config, units=units), [each for each in executables if each.unit not in left_out]


def _options(config: ModelConfig, runtime: Runtime) -> dict[str, str]:
    options = read_options(config.parameters, runtime, config.backend)
    optimization = config.message.optimization
    if runtime.name in BACKENDS_WITH_GRAPH_LEVEL and optimization.HasField("graph"):
        options["optimization.graph.level"] = str(optimization.graph.level)
    limit = f"{runtime.name}.max_batch_size"
    if limit in options_of(runtime, config.backend):
        options.setdefault(limit, str(config.batching.max_batch_size))
    return options
