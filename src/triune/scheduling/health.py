"""Records, for a model's statistics and the log, which of its units are gone and which have slowed down."""

import logging
from collections.abc import Sequence

from triune.core.errors import UnitLostError
from triune.core.statistics import ModelStatistics
from triune.scheduling.batch import Batch
from triune.scheduling.lane import Lane

_log = logging.getLogger(__name__)


class UnitHealth:
    """Records which of a model's units are lost, and which have slowed down."""

    def __init__(self, name: str, lanes: Sequence[Lane], statistics: ModelStatistics) -> None:
        """Args:
        name: the model's name, for the log.
        lanes: all lanes of the model.
        statistics: the model's counters, whose `lost`, `slowed` and `slowdowns` are set on the event loop's thread.
        """
        self._name = name
        self._lanes = lanes
        self._statistics = statistics

    def record_loss(self, lane: Lane, error: UnitLostError) -> None:
        """Record that a lane's hardware is gone. Its unit is lost when all of the unit's lanes are."""
        unit = lane.worker.runner.unit
        if all(each.is_lost for each in self._lanes if each.worker.runner.unit is unit):
            self._statistics.lost[unit] = str(error)
        _log.error("model '%s' leaves '%s': %s", self._name, unit.value, error)

    def record_speed(self, lane: Lane, batch: Batch) -> None:
        """Compare the time of a lane's batch with its best time, if its times can be compared.

        A batch that failed and ran again request by request is left out.
        """
        if lane.speed is None or batch.num_executions != 1:
            return
        unit, statistics = lane.worker.runner.unit, self._statistics
        has_changed = lane.speed.record(batch.num_elements, batch.infer_ns, batch.ended_ns)
        if lane.speed.ratio:
            statistics.slowdowns[unit] = lane.speed.ratio
        if not has_changed:
            return
        if lane.speed.is_slowed:
            statistics.slowed.add(unit)
            _log.warning(
                "model '%s': '%s' has slowed down: batches take %.1f times their best time since the load. Heat lowers "
                "clocks, or other programs use the unit",
                self._name,
                unit.value,
                lane.speed.ratio,
            )
        else:
            statistics.slowed.discard(unit)
            _log.info("model '%s': '%s' is as fast as before", self._name, unit.value)
