"""Time limits of loads and runs, and limits of the request queue."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from triune.config.policy import QueueLimits
from triune.core.clock import Clock, Timer
from triune.core.errors import InvalidArgumentError

LOAD_SECONDS_PARAMETER: Final = "load_timeout_secs"
"""The config parameter for a model's load timeout, which overrides `--load-timeout-secs`."""

RUN_SECONDS_PARAMETER: Final = "run_timeout_secs"
"""The config parameter for the timeout of one run, which overrides `--run-timeout-secs`."""

_MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """A model's limits.

    Attributes:
        load_seconds: the time for conversion, compilation, warm-up and measurements; waiting for other loads does not
            count.
        run_seconds: the time for one run of a batch.
        queue: the limits of its request queue.
    """

    load_seconds: float = 3600.0
    run_seconds: float = 1800.0
    queue: QueueLimits = field(default_factory=QueueLimits)


DEFAULT_LIMITS: Final = ModelLimits()


def limits_of(parameters: Mapping[str, str], defaults: ModelLimits) -> ModelLimits:
    """The limits of a model with these parameters.

    Raises:
        InvalidArgumentError: a limit is not a number of seconds above 0.
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
    """A timer that calls a function when a load takes too long."""

    def __init__(self, clock: Clock, seconds: float, on_late: Callable[[float], None]) -> None:
        """Args:
        clock: the clock.
        seconds: the limit, from now on.
        on_late: called with the number of seconds.
        """
        self._clock = clock
        self._begun_ns = clock.now_ns()
        self._on_late = on_late
        self._timer: Timer | None = None
        self.change(seconds)

    def change(self, seconds: float) -> None:
        """Change the limit. It still counts from the beginning."""
        self.cancel()
        when_ns = self._begun_ns + int(seconds * 1e9)
        self._timer = self._clock.call_at(when_ns, lambda: self._on_late(seconds))

    def cancel(self) -> None:
        """Stop the timer, since the load has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
