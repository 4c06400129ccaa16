"""The backend of ensembles, which have no model file, and whose steps call other models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from triune.backends.attempt import Attempt
from triune.backends.backend import Build
from triune.config.configure import Source
from triune.config.ensemble.agreement import check_agreement, with_labels
from triune.config.ensemble.configure import configure_ensemble
from triune.config.ensemble.steps import Step, translate_steps
from triune.config.limits import limits_of
from triune.config.metrics import new_statistics
from triune.config.model_config import ModelConfig
from triune.config.settings import DEFAULT_SETTINGS, ModelSettings
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError
from triune.core.servable import Servable
from triune.scheduling.models import Models
from triune.scheduling.steps.graph import StepGraph

MAX_LEVELS: Final = 64
"""The largest nesting depth of ensembles in ensembles. Errors and cancellations pass through all levels."""

MAX_RUNS: Final = 1024
"""The most models that one request to an ensemble may run, including the steps of nested ensembles. Thirty nested
ensembles of two steps each would run 2^30.
"""


@dataclass(frozen=True, slots=True)
class EnsembleBuild(Build):
    """An ensemble that was checked against the models of its steps.

    Attributes:
        steps: the steps, in the config's order.
    """

    steps: tuple[Step, ...]

    def is_current(self, source: Source) -> bool:
        """Whether a new build would be the same. The configs of the steps' models must be unchanged, too."""
        mine, theirs = self.source.parts, source.parts
        is_same = mine.keys() == theirs.keys() and all(mine[part] is theirs[part] for part in mine)
        # Name the base class: `super()` without arguments fails in a dataclass with slots, since its decorator creates
        # a new class.
        return is_same and Build.is_current(self, source)

    def __str__(self) -> str:
        return f"as an ensemble of {', '.join(dict.fromkeys(step.model for step in self.steps))}"


class EnsembleBackend:
    """The `Backend` of configs with `platform: "ensemble"`."""

    supports: frozenset[str] = frozenset({"ensemble_scheduling"})

    def __init__(self, clock: Clock, settings: ModelSettings = DEFAULT_SETTINGS) -> None:
        """Args:
        clock: the clock.
        settings: the limits of queues, and whether statistics have histograms.
        """
        self._clock = clock
        self._settings = settings

    def needs(self, source: Source) -> Mapping[str, frozenset[int | None]]:
        """The models of the steps: see `Backend.needs`."""
        needs: dict[str, frozenset[int | None]] = {}
        for step in translate_steps(source.named_message()):
            needs[step.model] = needs.get(step.model, frozenset()) | {step.version}
        return needs

    def configure(self, source: Source, version: int) -> ModelConfig:
        """Check the ensemble against the models of its steps, and take the labels of its outputs from them."""
        return self._configure(source, version)[0]

    def build(self, source: Source, version: int, previous: EnsembleBuild | None, attempt: Attempt) -> EnsembleBuild:
        """Check the ensemble; there is nothing to compile. See `Backend.build`."""
        del previous
        config, steps = self._configure(source, version)
        attempt.check()
        return EnsembleBuild(version, config, source, steps)

    def assemble(self, build: EnsembleBuild, models: Models) -> Servable:
        """Make the graph of steps: see `Backend.assemble`."""
        message = build.config.message
        return StepGraph(
            build.config,
            build.version,
            build.steps,
            models,
            new_statistics(message, has_distributions=self._settings.has_distributions),
            self._clock,
            max_under_way=message.ensemble_scheduling.max_inflight_requests,
            max_waiting=self._settings.limits.queue.max_requests,
            run_limit_seconds=limits_of(build.config.parameters, self._settings.limits).run_seconds,
        )

    def _configure(self, source: Source, version: int) -> tuple[ModelConfig, tuple[Step, ...]]:
        config, steps = configure_ensemble(source, version)
        parts = [source.parts[step.model, step.version] for step in steps]
        check_agreement(config, steps, parts)
        num_runs = 1 + sum(part.num_runs for part in parts)
        if num_runs > MAX_RUNS:
            raise InvalidArgumentError(
                f"ensemble '{config.name}' asks {num_runs} models for each request, since its steps are ensembles "
                f"themselves; the limit is {MAX_RUNS}: use fewer steps"
            )
        num_levels = 1 + max((part.num_levels for part in parts), default=0)
        if num_levels > MAX_LEVELS:
            raise InvalidArgumentError(
                f"ensemble '{config.name}' has {num_levels} levels of ensembles in ensembles; the limit is "
                f"{MAX_LEVELS}: let it call the models themselves"
            )
        return replace(with_labels(config, steps, parts), num_runs=num_runs, num_levels=num_levels), steps
