"""Models and chips of the simulator, with costs that are easy to add up."""

from collections.abc import Mapping

from triune.config.policy import BatchingPolicy, QueueLimits
from triune.core.units import Unit
from triune.planning.constants import constants
from triune.planning.units import PlannedUnit, Target, cpu_like_rates
from triune.simulation.profile import BatchCost, Profile, batch_sizes

MS = 1_000_000


def cost(unit_ms: Mapping[Unit, float], *, num_rows: int = 1, joules: float = 0.0, gigabytes: float = 0.0) -> BatchCost:
    return BatchCost(num_rows, {unit: MS * ms for unit, ms in unit_ms.items()}, joules, gigabytes * 1e9)


def model(
    name: str, unit_ms: Mapping[Unit, tuple[float, float]], *, max_batch_size: int = 8, megabytes: float = 0.0
) -> Profile:
    """A model whose batches take, on each unit, a fixed time and a time for each row."""
    costs = {
        unit: [
            cost({unit: launch + size * row}, num_rows=size, joules=0.01 * size, gigabytes=size * megabytes / 1e3)
            for size in batch_sizes(max(1, max_batch_size))
        ]
        for unit, (launch, row) in unit_ms.items()
    }
    policy = BatchingPolicy(
        max_batch_size=max_batch_size, is_dynamic=max_batch_size > 0, queue_limits=QueueLimits(max_requests=40)
    )
    return Profile(name, policy, 16, "encoder", costs, {})


def chip(gb_per_s: float | None = 100.0) -> Target:
    rates = cpu_like_rates(constants(), "cpu", tflops=1.0, gb_per_s=100.0, watts=2.0)
    units = {unit: PlannedUnit(unit, rates) for unit in Unit}
    return Target("Test", units, 2, gb_per_s, None, is_scored=False)
