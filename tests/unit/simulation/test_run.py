"""A trace on a chip, by each rule."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from support.simulated import MS, chip, model
from triune.config.policy import BatchingPolicy
from triune.core.units import Unit
from triune.planning.constants import constants
from triune.simulation.arrivals import Stream, synthetic
from triune.simulation.report import as_json, simulated
from triune.simulation.run import Rule, play, rules_of
from triune.simulation.trace import Arrival

PROFILES = {
    "small": model("small", {Unit.AMX: (0.1, 1.0), Unit.GPU: (0.5, 0.2), Unit.ANE: (0.2, 0.3)}),
    "large": model("large", {Unit.GPU: (1.0, 2.0), Unit.ANE: (1.0, 3.0)}, max_batch_size=4),
}
TRACE = synthetic([Stream("small", 1500.0), Stream("large", 200.0, 2)], 0.3, seed=4)


def digest() -> str:
    """All batches of all rules, in the order in which they ended."""
    found = [play(TRACE, PROFILES, chip(), rule).batches for rule in rules_of(PROFILES)]
    shown = [[(each.model, each.unit.value, each.arrived_ns, each.ended_ns) for each in batches] for batches in found]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def test_another_process_makes_the_same_schedules() -> None:
    command = "from unit.simulation.test_run import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == digest(), done.stderr


def test_a_request_alone_goes_to_the_first_unit_and_takes_its_time() -> None:
    schedule = play([Arrival(5 * MS, "large", 2)], PROFILES, chip(), Rule("triune"))
    (batch,) = schedule.batches
    assert (batch.unit, batch.started_ns, batch.ended_ns) == (Unit.GPU, 5 * MS, 10 * MS)
    assert (schedule.num_answered, schedule.num_refused) == (1, 0)


def test_a_request_runs_on_the_unit_that_it_asks_for() -> None:
    trace = [Arrival(index * MS // 2, "small", 1, Unit.AMX) for index in range(50)]
    assert {each.unit for each in play(trace, PROFILES, chip(), Rule("triune")).batches} == {Unit.AMX}
    assert {each.unit for each in play(trace, PROFILES, chip(), Rule("gpu alone", [Unit.GPU])).batches} == {Unit.GPU}


def test_rules_compare_units_that_serve_all_models_and_two_balancers() -> None:
    assert [each.name for each in rules_of(PROFILES)] == [
        "triune", "gpu alone", "ane alone", "round robin", "least loaded",
    ]  # fmt: skip


def test_in_turn_and_by_load() -> None:
    trace = [Arrival(index, "large", 1) for index in range(6)]
    for rule in rules_of(PROFILES)[-2:]:
        schedule = play(trace, PROFILES, chip(), rule)
        rows = {unit: sum(each.num_rows for each in schedule.batches if each.unit is unit) for unit in Unit}
        assert (rows[Unit.GPU], rows[Unit.ANE]) == (3, 3)


def test_what_does_not_fit_the_queue_is_refused() -> None:
    trace = [Arrival(0, "large", 4) for _ in range(60)]
    schedule = play(trace, PROFILES, chip(), Rule("triune"))
    assert schedule.num_refused > 0
    assert schedule.num_answered + schedule.num_refused == 60


def test_a_higher_priority_goes_first() -> None:
    policy = BatchingPolicy(max_batch_size=4, num_priority_levels=2, default_priority_level=2)
    profiles = {"large": replace(PROFILES["large"], policy=policy)}
    trace = [Arrival(index, "large", 1, Unit.GPU, 2 if index < 4 else 1) for index in range(5)]
    batches = play(trace, profiles, chip(), Rule("triune")).batches
    assert [each.arrived_ns for each in batches] == [[0], [4], [1], [2], [3]]


def test_models_compute_by_their_weights() -> None:
    profiles = {
        name: replace(model(name, {Unit.GPU: (0.0, 1.0)}, max_batch_size=1), weight=weight)
        for name, weight in (("a", 3.0), ("b", 1.0))
    }
    trace = [Arrival(0, name) for _ in range(40) for name in "ab"]
    batches = play(trace, profiles, chip(), Rule("triune")).batches
    num_b = sum(each.model == "b" for each in batches[:40])
    assert 9 <= num_b <= 11


def test_figures() -> None:
    found = simulated(TRACE, PROFILES, chip(), constants())
    values = as_json(found)
    assert values["kind"] == "simulated"
    assert values["num_requests"] == len(TRACE)
    for each in values["results"]:
        total, parts = each["total"], each["parts"]
        assert total["num_requests"] + each["num_refused"] == len(TRACE)
        assert sum(part["num_rows"] for part in parts) == total["num_rows"]
        assert sum(part["joules"] for part in parts) == pytest.approx(total["joules"])
        assert {part["unit"] for part in parts} == set(each["utilisation"])
        assert 0 < each["of_optimum"] <= 1
        assert total["p99_ms"] >= max(total["p50_ms"], each["least_p99_ms"])
        assert total["joules"] >= each["least_joules"] * (1 - 1e-9)
    alone = simulated(TRACE, PROFILES, chip(), constants(), is_compared=False)
    assert [each.name for each in alone.results] == ["triune"]
    assert alone.results[0] == found.results[0]
