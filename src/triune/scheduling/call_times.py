"""How long a model's batches took alone on each unit, and how many joules, by the shapes of their inputs."""

import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from triune.core.datatypes import Array
from triune.core.energy import Work
from triune.core.errors import TriuneError
from triune.core.threads import NoThreadError, start_thread
from triune.core.units import Unit
from triune.planning.measured import MANY_CALLS, MeasuredTime
from triune.scheduling.batch import Batch

_MOST_PLACES: Final = 256
"""Times are kept for at most this many pairs of a unit and shapes, since clients choose the shapes."""

_MOST_CALLS: Final = 64
"""A time is the median of at most this many calls, the newest ones."""

_LEAST_CALLS: Final = 3
"""A time is told only after this many calls: the first one is slower. A slow unit beside a fast one gets few more."""

_INTERVAL_NS: Final = 60_000_000_000
"""New times are stored this often while the model serves."""

Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(slots=True)
class _Calls:
    """The newest calls on one unit with inputs of the same shapes.

    Attributes:
        count: the number of calls that were recorded.
        ns: how long each of the newest ones took, in ns.
        works: the works of the newest ones whose energy is charged.
    """

    count: int = 0
    ns: deque[int] = field(default_factory=lambda: deque[int](maxlen=_MOST_CALLS))
    works: deque[Work] = field(default_factory=lambda: deque[Work](maxlen=_MOST_CALLS))


class CallTimes:
    """The times of one version of a model. `record` is called on the event loop's thread, `keep` on any."""

    def __init__(self, store: Callable[[Sequence[MeasuredTime]], None]) -> None:
        """`store` stores the times. It blocks, and is called in a thread, in one at a time."""
        self._store = store
        self._calls: dict[tuple[Unit, Shapes], _Calls] = {}
        self._lock = threading.Lock()
        self._kept_ns: int | None = None
        self._has_new = False

    def record(self, unit: Unit, batch: Batch, work: Work | None) -> None:
        """Record a batch during which nothing else computed on the hardware. `work` has its energy; None if that is not
        metered.

        Batches that failed, and those that were filled up since their rows differ in shape, are not counted.
        """
        if (
            batch.num_executions != 1
            or batch.is_given_up
            or any(isinstance(each, TriuneError) for each in batch.answers)
        ):
            return
        shapes = _shapes_of(batch)
        if shapes is not None:
            self._record(unit, shapes, batch.infer_ns, batch.ended_ns, work)

    def record_call(self, unit: Unit, inputs: Mapping[str, Array], duration_ns: int, ended_ns: int) -> None:
        """Record a request of a small model that ran at once, while nothing else computed on the hardware.

        Args:
            unit: the unit.
            inputs: the inputs of the request.
            duration_ns: how long it took, in ns.
            ended_ns: when it ended, on the clock of batches.
        """
        self._record(unit, _shapes(inputs, None), duration_ns, ended_ns, None)

    def _record(self, unit: Unit, shapes: Shapes, duration_ns: int, ended_ns: int, work: Work | None) -> None:
        calls = self._calls.get((unit, shapes))
        if calls is None:
            if len(self._calls) >= _MOST_PLACES:
                del self._calls[next(iter(self._calls))]
            calls = self._calls[unit, shapes] = _Calls()
        calls.count += 1
        calls.ns.append(duration_ns)
        if work is not None:
            calls.works.append(work)
        self._has_new = True
        is_due = calls.count >= MANY_CALLS if self._kept_ns is None else ended_ns - self._kept_ns >= _INTERVAL_NS
        if is_due:
            self._kept_ns = ended_ns
            try:
                start_thread(self.keep, "keep measured times")
            except NoThreadError:
                # The next interval, or the end of the model, stores them.
                return

    def times(self) -> list[MeasuredTime]:
        """The times so far."""
        return list(self._times())

    def keep(self) -> None:
        """Store the times, if there are new ones. Blocks."""
        with self._lock:
            if self._has_new:
                self._has_new = False
                if times := self.times():
                    self._store(times)

    def _times(self) -> Iterator[MeasuredTime]:
        # This iterates over copies, since the event loop's thread may record meanwhile.
        for (unit, shapes), calls in self._calls.copy().items():
            ns = statistics.median(calls.ns.copy()) if calls.count >= _LEAST_CALLS else 0
            if ns <= 0:
                continue
            joules = [each.joules for each in calls.works.copy() if each.joules is not None]
            mean = statistics.fmean(joules) if len(joules) >= _LEAST_CALLS else None
            yield MeasuredTime(unit, dict(shapes), ns / 1e6, calls.count, joules=mean)


def _shapes_of(batch: Batch) -> Shapes | None:
    """The shapes of a batch's inputs, sorted by name; None if its requests differ in the shape of a row."""
    inputs = batch.pendings[0].call.inputs
    if len(batch.pendings) == 1:
        return _shapes(inputs, None)
    for name in batch.ragged.intersection(inputs):
        if len({each.call.inputs[name].shape[1:] for each in batch.pendings}) > 1:
            return None
    return _shapes(inputs, batch.num_rows)


def _shapes(inputs: Mapping[str, Array], num_rows: int | None) -> Shapes:
    """The shapes of inputs, with `num_rows` in place of the first dimension; None leaves it as it is."""
    if num_rows is None:
        return tuple(sorted((name, array.shape) for name, array in inputs.items()))
    return tuple(sorted((name, (num_rows, *array.shape[1:])) for name, array in inputs.items()))
