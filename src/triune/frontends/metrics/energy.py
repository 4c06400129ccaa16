"""Metrics of energy: the joules of each model by unit and phase, and what the machine's energy meters counted.

An unavailable figure has no sample; it is never exported as 0.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from prometheus_client.metrics_core import Metric

from triune.core.statistics import ModelStatistics
from triune.core.units import Unit
from triune.hardware.energy.ledger import RailStatus

LabelledStatistics: TypeAlias = Sequence[tuple[dict[str, str], ModelStatistics]]


def energy(models: LabelledStatistics, rails: Sequence[RailStatus]) -> Iterable[Metric]:
    """Yield the metric families of energy."""
    joules = Metric(
        "triune_energy_joules_total",
        "Joules that each model used on each unit, by phase: infer, prefill, decode, encode",
        "counter",
    )
    for labels, counted in models:
        for account in counted.accounts.values():
            for (phase, kind), value in account.totals().items():
                where = {"unit": account.unit.value, "phase": phase.value, "kind": kind.value}
                joules.add_sample(joules.name, {**labels, **where}, value)
    yield joules
    watts = Metric("triune_power_watts", "Mean power between the last two readings of the meter", "gauge")
    metered = Metric("triune_rail_energy_joules_total", "Joules that the meter of a rail counted", "counter")
    idle = Metric(
        "triune_rail_idle_joules_total", "Joules of a rail while none of its units computed for a model", "counter"
    )
    for each in rails:
        rail, totals = each.rail, each.totals
        # The label is "cpu" for the rail that cpu and amx share: the first of its units in the order of `Unit`.
        unit = next(unit.value for unit in Unit if unit in rail.units)
        labels = {"rail": rail.name, "unit": unit, "kind": rail.kind.value}
        if totals.watts is not None:
            watts.add_sample(watts.name, labels, totals.watts)
        if totals.watts is not None or totals.metered:
            metered.add_sample(metered.name, labels, totals.metered)
            if not rail.is_load_only:
                idle.add_sample(idle.name, labels, totals.idle)
    yield watts
    yield metered
    yield idle
