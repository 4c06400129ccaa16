"""Models and units that share hardware, under load. On simulated hardware."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from support.simulated import MS, chip, model
from triune.core.units import Unit
from triune.simulation.arrivals import Stream, synthetic
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import BatchCost
from triune.simulation.run import Rule, Schedule, play

BOTH = {"texts": model("texts", {Unit.AMX: (4.0, 14.0), Unit.CPU: (4.0, 50.0)}, max_batch_size=16)}
"""Milliseconds of a batch and of each of its rows. A batch takes up to 228 ms on `amx`, and 804 ms on `cpu`: longer
than another model would wait for its turn.
"""

SECONDS = 80


def rate(schedule: Schedule) -> float:
    """Rows a second in the second half, when the units are known."""
    late = [each for each in schedule.batches if each.ended_ns > SECONDS / 2 * 1e9]
    return sum(each.num_rows for each in late) / (max(each.ended_ns for each in late) / 1e9 - SECONDS / 2)


def p99_ms(schedule: Schedule) -> float:
    late = [each for each in schedule.batches if each.ended_ns > SECONDS / 2 * 1e9]
    return float(np.percentile([each.ended_ns - at_ns for each in late for at_ns in each.arrived_ns], 99)) / MS


@pytest.mark.parametrize(("load", "seeds"), [(0.8, (1, 2, 3, 4)), (1.2, (7,))])
def test_a_slow_unit_on_the_same_cores_costs_nothing(load: float, seeds: tuple[int, ...]) -> None:
    alone_ms, both_ms = list[float](), list[float]()
    for seed in seeds:
        trace = synthetic([Stream("texts", 70 * load)], SECONDS, seed=seed)
        alone = play(trace, BOTH, chip(), Rule("amx alone", [Unit.AMX]))
        both = play(trace, BOTH, chip(), Rule("triune"))
        assert rate(both) >= 0.98 * rate(alone)
        alone_ms.append(p99_ms(alone))
        both_ms.append(p99_ms(both))
    # Where it falls on a queue, the time in which both units are measured together makes the p99 of one trace twice as
    # long.
    assert np.mean(both_ms) <= 1.25 * np.mean(alone_ms)


def test_a_unit_whose_first_run_was_disturbed_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, disturbed = SimulatedChip.begin, [False]

    def late(self: SimulatedChip, unit: Unit, cost: BatchCost, done: Callable[[float], None]) -> None:
        if unit is Unit.AMX and not disturbed[0]:
            disturbed[0] = True
            cost = replace(cost, unit_ns={unit: 2e9})
        begin(self, unit, cost, done)

    monkeypatch.setattr(SimulatedChip, "begin", late)
    trace = synthetic([Stream("texts", 50.0)], 20, seed=7)
    batches = play(trace, BOTH, chip(), Rule("triune")).batches
    assert disturbed[0]
    late_batches = batches[len(batches) // 2 :]
    assert sum(each.unit is Unit.AMX for each in late_batches) > 0.95 * len(late_batches)


@pytest.mark.parametrize(("images", "seed"), [(10.0, 5), (12.0, 2), (13.0, 2)])
def test_a_second_unit_on_the_same_cores_does_not_make_short_requests_late(images: float, seed: int) -> None:
    """Both models may use both units. A model's second unit would only slow down whatever computes."""
    models = {
        "texts": model("texts", {Unit.CPU: (1.0, 8.0), Unit.AMX: (1.0, 3.5)}),
        "images": model("images", {Unit.CPU: (2.0, 4.5), Unit.AMX: (2.0, 2.0)}, max_batch_size=32),
    }
    seconds = 30
    streams = [Stream("texts", 20.0), Stream("images", images, num_rows=32)]
    trace = synthetic(streams, seconds, seed=seed)

    def p99_of_texts(rule: Rule) -> float:
        batches = play(trace, models, chip(), rule).batches
        late = [each for each in batches if each.model == "texts" and each.ended_ns > seconds / 2 * 1e9]
        return float(np.percentile([each.ended_ns - at_ns for each in late for at_ns in each.arrived_ns], 99)) / MS

    alone_ms, both_ms = p99_of_texts(Rule("amx alone", [Unit.AMX])), p99_of_texts(Rule("triune"))
    assert alone_ms < 25
    assert both_ms < 1.25 * alone_ms


@pytest.mark.parametrize(("images", "seed"), [(11.0, 3), (13.0, 4), (14.0, 2)])
def test_long_and_short_requests_of_one_model_do_not_compute_at_once_for_no_gain(images: float, seed: int) -> None:
    """A short request may go beside a long one on the other unit; the long one behind it may not."""
    models = {"images": model("images", {Unit.CPU: (2.0, 4.5), Unit.AMX: (2.0, 2.0)}, max_batch_size=32)}
    trace = synthetic([Stream("images", 4.0), Stream("images", images, num_rows=32)], 40, seed=seed)

    def p99(rule: Rule) -> float:
        batches = play(trace, models, chip(), rule).batches
        late = [each for each in batches if each.ended_ns > 5e9]
        return float(np.percentile([each.ended_ns - at_ns for each in late for at_ns in each.arrived_ns], 99)) / MS

    assert p99(Rule("triune")) < 1.2 * p99(Rule("amx alone", [Unit.AMX]))


@pytest.mark.parametrize("objective_ms", [30, 60])
def test_a_unit_whose_first_batch_of_each_size_is_slow_computes_the_others(
    objective_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library compiles kernels for each shape. Requests are cut, so that sizes occur that were not measured first."""
    begin, seen = SimulatedChip.begin, set[int]()

    def compiling(self: SimulatedChip, unit: Unit, cost: BatchCost, done: Callable[[float], None]) -> None:
        if unit is Unit.AMX and cost.num_rows not in seen:
            seen.add(cost.num_rows)
            cost = replace(cost, unit_ns={unit: cost.ns + 200 * MS})
        begin(self, unit, cost, done)

    monkeypatch.setattr(SimulatedChip, "begin", compiling)
    images = model("images", {Unit.CPU: (1.0, 4.9), Unit.AMX: (1.7, 2.2)}, max_batch_size=32)
    models = {"images": replace(images, objective_ns=objective_ms * MS)}
    trace = synthetic([Stream("images", 10.0), Stream("images", 4.0, num_rows=32)], 20, seed=1)
    batches = play(trace, models, chip(), Rule("triune")).batches
    late = [each for each in batches if each.ended_ns > 10e9]
    on_amx = sum(each.num_rows for each in late if each.unit is Unit.AMX)
    assert on_amx > 0.95 * sum(each.num_rows for each in late)


@pytest.mark.parametrize("units", [[Unit.GPU], [Unit.CPU, Unit.AMX]])
def test_models_that_take_turns_cut_their_batches_for_the_latency_objective_of_another(units: list[Unit]) -> None:
    images_ms = {unit: (2.0, 4.5 if unit is Unit.CPU else 2.0) for unit in units}
    # Weights that differ are followed by turns alone.
    models = {
        "texts": replace(model("texts", dict.fromkeys(units, (2.0, 20.0))), weight=1.0),
        "images": replace(model("images", images_ms, max_batch_size=32), weight=0.5),
    }
    seconds = 30
    trace = synthetic([Stream("texts", 8.0), Stream("images", 7.0, num_rows=32)], seconds, seed=1)

    def p99_of_texts(objective_ms: int) -> float:
        of_texts = replace(models["texts"], objective_ns=objective_ms * MS)
        schedule = play(trace, {**models, "texts": of_texts}, chip(), Rule("triune"))
        assert schedule.num_answered == len(trace), "parts count as one request"
        assert sum(each.num_rows for each in schedule.batches) == sum(each.num_rows for each in trace)
        late = [each for each in schedule.batches if each.model == "texts" and each.ended_ns > 8e9]
        return float(np.percentile([each.ended_ns - at_ns for each in late for at_ns in each.arrived_ns], 99)) / MS

    assert p99_of_texts(60) < 0.75 * p99_of_texts(0)


def test_batches_are_whole_again_once_the_model_with_the_objective_is_idle() -> None:
    models = {
        "texts": replace(model("texts", {Unit.GPU: (2.0, 20.0)}), weight=1.0, objective_ns=60 * MS),
        "images": replace(model("images", {Unit.GPU: (2.0, 2.0)}, max_batch_size=32), weight=0.5),
    }
    texts, images = (
        synthetic([Stream("texts", 8.0)], 5, seed=1),
        synthetic([Stream("images", 7.0, num_rows=32)], 30, seed=2),
    )
    batches = play(sorted([*texts, *images], key=lambda each: each.at_ns), models, chip(), Rule("triune")).batches
    of_images = [each for each in batches if each.model == "images"]
    assert {each.num_rows for each in of_images if 3e9 < each.started_ns < 5e9} <= {8, 4}
    assert {each.num_rows for each in of_images if each.started_ns > 16e9} == {32}


def test_models_that_fill_the_hardware_compute_where_they_are_relatively_best() -> None:
    profiles = {
        "texts": model("texts", {Unit.GPU: (1.0, 1.0), Unit.ANE: (1.0, 3.0)}),
        "images": model("images", {Unit.GPU: (1.0, 2.0), Unit.ANE: (1.0, 1.4)}),
    }
    seconds = 8
    # Alone on its best unit each computes 889 and 656 rows a second, in batches of eight.
    trace = synthetic([Stream("texts", 900.0), Stream("images", 660.0)], seconds, seed=3)
    batches = play(trace, profiles, chip(), Rule("triune")).batches
    late = [each for each in batches if seconds / 2 * 1e9 < each.ended_ns < seconds * 1e9]
    assert sum(each.num_rows for each in late) > 0.95 * (889 + 656) * seconds / 2
    right = sum(each.num_rows for each in late if (each.model == "texts") == (each.unit is Unit.GPU))
    assert right > 0.97 * sum(each.num_rows for each in late)


def test_requests_that_name_their_units_do_not_wait_for_models_that_compute_elsewhere() -> None:
    """Each model's requests name a unit on which the other is relatively better; nothing else needs it."""
    models = {
        "first": model("first", {Unit.GPU: (0.0, 1.0), Unit.ANE: (0.0, 2.0)}),
        "second": model("second", {Unit.GPU: (0.0, 1.0), Unit.ANE: (0.0, 1.0)}),
    }
    trace = synthetic([Stream("first", 400.0), Stream("second", 700.0)], 4, seed=3)
    named = [replace(each, unit=Unit.ANE if each.model == "first" else Unit.GPU) for each in trace]
    schedule = play(named, models, chip(), Rule("triune"))
    assert max(each.ended_ns for each in schedule.batches) < 4.5e9
    waited_ms = [(each.started_ns - at_ns) / MS for each in schedule.batches for at_ns in each.arrived_ns]
    assert max(waited_ms) < 200
