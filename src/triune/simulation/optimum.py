"""Bounds that no schedule can beat, on the time, the energy and the latency of requests, from the same predictions.

The least time comes from a linear program. A schedule assigns every row a unit and a batch size, which need time of
each pool of hardware and of the memory; no resource can be used for longer than the total time. In the dual program
each resource has a price, and the prices add up to 1. For any such prices, the total time of any schedule is at least
the sum over all rows of their cost at the cheapest choice. The best prices solve the dual program; other prices give a
lower, but valid bound. They are found by exponentiated gradients, so that no solver is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triune.core.units import Unit
from triune.simulation.profile import Profile

_NUM_STEPS: Final = 1000


class Optimum:
    """Bounds that no schedule of requests to some models on a chip can beat."""

    def __init__(
        self, profiles: Mapping[str, Profile], pool_of: Callable[[Unit], Unit], memory_gb_per_s: float | None
    ) -> None:
        """Collect the choices of unit and batch size that each model has.

        Args:
            profiles: the models by name.
            pool_of: the pool of a unit.
            memory_gb_per_s: the bandwidth of the memory; None for no limit.
        """
        pools = list(dict.fromkeys(pool_of(unit) for each in profiles.values() for unit in each.costs))
        self._profiles = profiles
        self._choices: dict[str, NDArray[np.float64]] = {}
        for name, profile in profiles.items():
            rows: list[list[float]] = []
            for costs in profile.costs.values():
                for cost in costs:
                    times = [sum(ns for unit, ns in cost.unit_ns.items() if pool_of(unit) is pool) for pool in pools]
                    memory = min(cost.ns, cost.memory_bytes / memory_gb_per_s) if memory_gb_per_s else 0.0
                    rows.append([each / cost.num_rows for each in (*times, memory)])
            self._choices[name] = np.array(rows)

    def least_ns(self, num_rows: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """The least time in which `num_rows` of each model can be computed.

        Returns:
            the time in nanoseconds, and for each model the part of it that one row takes. The parts of all rows add up
            to the time.
        """
        choices = [(self._choices[name], number) for name, number in num_rows.items()]
        prices = np.full(choices[0][0].shape[1], 1 / choices[0][0].shape[1])
        best, best_prices = -1.0, prices
        for step in range(_NUM_STEPS):
            used = np.zeros_like(prices)
            for each, number in choices:
                used += number * each[(each @ prices).argmin()]
            bound = float(used @ prices)
            if bound > best:
                best, best_prices = bound, prices
            prices = prices * np.exp(used / used.max() * 2 / np.sqrt(step + 1))
            prices = prices / prices.sum()
        return best, {name: float((self._choices[name] @ best_prices).min()) for name in num_rows}

    def last_ns(self, arrivals: Sequence[tuple[int, str, int]]) -> float:
        """The earliest time at which the last of some requests can be answered.

        Args:
            arrivals: for each request its time in nanoseconds, its model and its number of rows, in order.
        """
        totals: dict[str, float] = {}
        for _, model, num_rows in arrivals:
            totals[model] = totals.get(model, 0.0) + num_rows
        _, row_ns = self.least_ns(totals)
        # The requests that come at a given time or later take at least the sum of their parts of the least time
        # (`row_ns`), and none of it before that time.
        work = np.cumsum([row_ns[model] * num_rows for _, model, num_rows in reversed(arrivals)])[::-1]
        latest = max(at_ns + self.fastest_ns(model, num_rows) for at_ns, model, num_rows in arrivals)
        return max(latest, float((np.array([each[0] for each in arrivals]) + work).max()))

    def fastest_ns(self, model: str, num_rows: int) -> float:
        """The time of a request on its fastest unit, with nothing else running."""
        profile = self._profiles[model]
        return min(profile.cost(unit, num_rows).ns for unit in profile.costs)

    def row_joules(self, model: str) -> float:
        """The energy of a row on the unit and in the batch size that take the least energy."""
        return min(cost.joules / cost.num_rows for costs in self._profiles[model].costs.values() for cost in costs)
