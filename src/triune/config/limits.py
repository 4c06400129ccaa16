"""Time limits of loads and runs, and limits of the request queue."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from triune.config.policy import QueueLimits
from triune.core.clock import Clock, Timer
from triune.core.errors import InvalidArgumentError

LOAD_SECONDS_PARAMETER: Final = "load_timeout_secs"
"""The config parameter for a model's load timeout, which overrides `--load-timeout-secs`."""

RUN_SECONDS_PARAMETER: Final = "run_timeout_secs"
"""The config parameter for the timeout of one run, which overrides `--run-timeout-secs`."""

_MAX_SECONDS = 1e9

_Run = TypeVar("_Run")


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
    """Read a model's limits from the parameters of its config.

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


class RunLimit(Generic[_Run]):
    """Ends runs that take too long. One timer serves all runs: it fires when the oldest run
    exceeds the limit.

    Everything runs on the event loop's thread.
    """

    def __init__(
        self,
        clock: Clock,
        seconds: float,
        running: Callable[[], Iterable[tuple[_Run, int]]],
        end: Callable[[_Run], None],
    ) -> None:
        """Args:
        clock: the clock.
        seconds: the limit of a run; infinite for none.
        running: returns the runs that have neither ended nor been given up, each with the time at which it began, in
            nanoseconds of `clock`.
        end: is called with each run that has exceeded the limit, and must end it or give it up.
        """
        self.seconds = seconds
        self._clock = clock
        self._running = running
        self._end = end
        self._timer: Timer | None = None

    def watch(self) -> None:
        """Start the timer, if it is not running. Call this after a run has begun."""
        if self._timer is None and self.seconds < math.inf:
            self._timer = self._clock.call_at(self._clock.now_ns() + int(self.seconds * 1e9), self._end_late)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_late(self) -> None:
        self._timer = None
        limit_ns, now_ns = int(self.seconds * 1e9), self._clock.now_ns()
        next_ns: int | None = None
        for run, begun_ns in list(self._running()):
            late_ns = begun_ns + limit_ns
            if now_ns < late_ns:
                next_ns = min(next_ns or late_ns, late_ns)
            else:
                self._end(run)
        if next_ns is not None:
            # Stop the timer before it is set for the oldest run: `end` may have begun another run, which set the timer
            # for a later time.
            self.close()
            self._timer = self._clock.call_at(next_ns, self._end_late)


class LoadLimit:
    """A timer that calls a function when a load takes too long."""

    def __init__(self, clock: Clock, seconds: float, on_late: Callable[[float], None]) -> None:
        """Args:
        clock: the clock.
        seconds: the limit, from now on.
        on_late: called when the limit has passed, with the limit in seconds.
        """
        self._clock = clock
        self._begun_ns = clock.now_ns()
        self._on_late = on_late
        self._timer: Timer | None = None
        self.change(seconds)

    def change(self, seconds: float) -> None:
        """Change the limit, which still counts from the start of the load."""
        self.cancel()
        when_ns = self._begun_ns + int(seconds * 1e9)
        self._timer = self._clock.call_at(when_ns, lambda: self._on_late(seconds))

    def cancel(self) -> None:
        """Stop the timer, since the load has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
