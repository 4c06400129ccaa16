"""The time limit of requests to an ensemble."""

import math
from collections.abc import Callable, Collection

from triune.core.clock import Clock, Timer
from triune.scheduling.steps.run import Run


class TimeLimit:
    """Ends requests that have run for too long. One timer serves all: it fires for the oldest one.

    Everything runs on the event loop's thread.
    """

    def __init__(self, runs: Collection[Run], seconds: float, clock: Clock, end: Callable[[Run], None]) -> None:
        """Args:
        runs: the running requests, the oldest first; the owner adds and removes them.
        seconds: the time limit of a request, from its arrival; infinite for none.
        clock: the clock.
        end: called with each request that has exceeded the limit without an answer. It must answer the request.
        """
        self._runs = runs
        self._seconds = seconds
        self._clock = clock
        self._end = end
        self._timer: Timer | None = None

    def watch(self) -> None:
        """Start the timer, if it is not running. Call this after a request was added to `runs`."""
        if self._timer is None and self._seconds < math.inf:
            self._timer = self._clock.call_at(self._clock.now_ns() + int(self._seconds * 1e9), self._end_late_runs)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_late_runs(self) -> None:
        self._timer = None
        limit_ns, now_ns = int(self._seconds * 1e9), self._clock.now_ns()
        for run in list(self._runs):
            if run.future.done():
                continue
            if now_ns < run.started_ns + limit_ns:
                self._timer = self._clock.call_at(run.started_ns + limit_ns, self._end_late_runs)
                return
            self._end(run)
