"""How long a load and a run may take, and how many requests may wait: so that nothing lasts for ever."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from triune.config.policy import QueueLimits
from triune.core.clock import Clock, Timer
from triune.core.errors import InvalidArgumentError

LOAD_SECONDS_PARAMETER: Final = "load_timeout_secs"
"""The config's parameter that says how long the model may take to load, in place of `--load-timeout-secs`."""

RUN_SECONDS_PARAMETER: Final = "run_timeout_secs"
"""The config's parameter that says how long one run may take, in place of `--run-timeout-secs`."""

_MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model is allowed.

    Attributes:
        load_seconds: from its turn to load until it is ready: conversion, compilation, warm-up and measurements.
        run_seconds: for one run of a batch.
        queue: of requests that wait.
    """

    load_seconds: float = 3600.0
    run_seconds: float = 1800.0
    queue: QueueLimits = field(default_factory=QueueLimits)


DEFAULT_LIMITS: Final = ModelLimits()


def limits_of(parameters: Mapping[str, str], defaults: ModelLimits) -> ModelLimits:
    """The limits of a model with these parameters.

    Raises:
        InvalidArgumentError: one of them is no number of seconds above 0.
    """
    return ModelLimits(
        _seconds(parameters, LOAD_SECONDS_PARAMETER, defaults.load_seconds),
        _seconds(parameters, RUN_SECONDS_PARAMETER, defaults.run_seconds),
        defaults.queue,
    )


def _seconds(parameters: Mapping[str, str], name: str, default: float) -> float:
    text = parameters.get(name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidArgumentError(f"parameter '{name}' is {text!r}; write a number of seconds above 0, as 600")
    return seconds


class LoadLimit:
    """Calls when a load has taken too long."""

    def __init__(self, clock: Clock, seconds: float, on_late: Callable[[float], None]) -> None:
        """Args:
        clock: time.
        seconds: from now on.
        on_late: called with the number of seconds.
        """
        self._clock = clock
        self._begun_ns = clock.now_ns()
        self._on_late = on_late
        self._timer: Timer | None = None
        self.change(seconds)

    def change(self, seconds: float) -> None:
        """So many seconds from the beginning on."""
        self.cancel()
        when_ns = self._begun_ns + int(seconds * 1e9)
        self._timer = self._clock.call_at(when_ns, lambda: self._on_late(seconds))

    def cancel(self) -> None:
        """It has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
