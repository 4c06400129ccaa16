"""A model on two units that share the cores: the second never costs anything. On simulated hardware."""

import numpy as np
import pytest

from support.simulated import MS, chip, model
from triune.core.units import Unit
from triune.simulation.arrivals import Stream, synthetic
from triune.simulation.run import Rule, Schedule, play

BOTH = {"texts": model("texts", {Unit.AMX: (8.0, 24.0), Unit.CPU: (8.0, 80.0)}, max_batch_size=16)}
"""Milliseconds of a batch and of each of its rows. A batch takes up to 392 ms on `amx`, and 1,288 ms on `cpu`."""


def rate(schedule: Schedule) -> float:
    """Rows a second until the last batch ends."""
    return sum(each.num_rows for each in schedule.batches) / max(each.ended_ns for each in schedule.batches) * 1e9


def p99_ms(schedule: Schedule) -> float:
    waits = [each.ended_ns - at_ns for each in schedule.batches for at_ns in each.arrived_ns]
    return float(np.percentile(waits, 99)) / MS


@pytest.mark.parametrize("load", [0.5, 0.8, 0.95, 1.2])
def test_a_slow_unit_on_the_same_cores_costs_nothing(load: float) -> None:
    trace = synthetic([Stream("texts", 40 * load)], 40, seed=7)
    alone = play(trace, BOTH, chip(), Rule("amx alone", [Unit.AMX]))
    both = play(trace, BOTH, chip(), Rule("triune"))
    assert rate(both) >= 0.98 * rate(alone)
    assert p99_ms(both) <= 1.1 * p99_ms(alone) + 100
