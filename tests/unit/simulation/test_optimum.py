"""The bound is one: a solver of linear programs finds no lower time, and hardly a higher one."""

import numpy as np
import pytest
from scipy.optimize import linprog

from support.simulated import MS, model
from triune.core.units import Unit
from triune.simulation.optimum import Optimum
from triune.simulation.profile import Profile

UNITS = (Unit.AMX, Unit.GPU, Unit.ANE)


def solved(profiles: dict[str, Profile], rows: dict[str, float], gb_per_s: float) -> float:
    """The least time, by scipy: variables are the rows of each choice, and the time."""
    choices = [
        (name, unit, each) for name, found in profiles.items() for unit, costs in found.costs.items() for each in costs
    ]
    used = np.zeros((4, len(choices) + 1))
    for index, (_, unit, each) in enumerate(choices):
        used[UNITS.index(unit), index] = each.ns / each.num_rows
        used[3, index] = min(each.ns, each.memory_bytes / gb_per_s) / each.num_rows
    used[:, -1] = -1
    given = [[*(float(name == other) for other, _, _ in choices), 0.0] for name in rows]
    goal = [*np.zeros(len(choices)), 1.0]
    return linprog(goal, used, np.zeros(4), given, list(rows.values())).fun


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_the_solution_of_the_linear_program(seed: int) -> None:
    random = np.random.default_rng(seed)
    profiles: dict[str, Profile] = {}
    for name in "abc"[: 1 + seed % 3]:
        served = [unit for unit in UNITS if random.random() < 0.8] or [Unit.GPU]
        unit_ms = {unit: (random.uniform(0, 2), random.uniform(0.2, 9)) for unit in served}
        profiles[name] = model(name, unit_ms, megabytes=random.uniform(0, 40))
    rows = {name: random.uniform(1, 100) for name in profiles}
    found, row_ns = Optimum(profiles, lambda unit: unit, 20.0).least_ns(rows)
    least = solved(profiles, rows, 20.0)
    assert 0.98 * least < found <= least * (1 + 1e-9)
    assert sum(row_ns[name] * number for name, number in rows.items()) == pytest.approx(found)


def test_nothing_is_answered_before_it_has_arrived_and_been_computed() -> None:
    optimum = Optimum({"a": model("a", {Unit.GPU: (1.0, 2.0), Unit.ANE: (0.0, 4.0)})}, lambda unit: unit, None)
    assert optimum.fastest_ns("a", 1) == 3 * MS
    assert optimum.last_ns([(7 * MS, "a", 1)]) == 10 * MS
    # In batches of 8 a row takes 2.125 ms on gpu and 4 on ane: 1.3878 ms on both together.
    many = optimum.last_ns([(0, "a", 8), *[(5 * MS, "a", 8)] * 100])
    assert many == pytest.approx((5 + 800 / (1 / 2.125 + 1 / 4)) * MS, rel=0.01)
