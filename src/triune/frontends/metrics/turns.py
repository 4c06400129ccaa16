"""Metrics of models that compete for hardware: how many compute at once, and how long each waited for its turn."""

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric

from triune.arbiter.pool import Pool
from triune.core.units import Unit


def turns(pools: Mapping[Unit, Pool]) -> Iterable[Metric]:
    """Yield the metric families of the pools, the hardware that units share. The label `pool` is the first of a pool's
    units.
    """
    level = Metric(
        "triune_pool_level",
        "How many models compute at once on shared hardware; 0 for all, -1 for all on all of their units",
        "gauge",
    )
    speedup = Metric(
        "triune_pool_speedup_ratio",
        "What so many models at once get done, as a multiple of what one at a time could",
        "gauge",
    )
    waited = Metric("triune_turn_wait_seconds_total", "Seconds that each model waited for its turns", "counter")
    waits = Metric("triune_turn_waits_total", "How often each model waited for its turn", "counter")
    for unit, pool in sorted(pools.items(), key=lambda each: each[0].value):
        labels = {"pool": unit.value}
        level.add_sample(level.name, labels, pool.concurrency.level)
        for each, ratio in sorted(pool.concurrency.speedups.items()):
            speedup.add_sample(speedup.name, {**labels, "level": str(each)}, ratio)
        sums: dict[str, list[float]] = {}
        for share in pool.shares:
            found = sums.setdefault(share.name, [0.0, 0])
            found[0] += share.waited_ns / 1e9
            found[1] += share.num_waits
        for name, (seconds, count) in sorted(sums.items()):
            waited.add_sample(waited.name, {**labels, "model": name}, seconds)
            waits.add_sample(waits.name, {**labels, "model": name}, count)
    yield from (level, speedup, waited, waits)
