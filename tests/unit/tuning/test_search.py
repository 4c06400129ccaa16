"""The search finds the best of made-up surfaces within its budget, and keeps the given config if nothing is gained."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from support.tuned import Surface, Values, axis, hill, level
from triune.core.errors import InvalidArgumentError
from triune.tuning.measurement import LoadLevel, Objective

SIZES = ("1", "2", "4", "8", "16")


def surface(best: dict[str, str], **options: Any) -> Surface:
    axes = [axis(name, *SIZES, given="1") for name in best]
    return Surface(axes, lambda values: level(hill(values, best), 10), **options)


def test_the_optimum_is_found_within_the_budget() -> None:
    made = surface({"size": "8", "delay": "4"})
    found = made.search(budget=60)
    assert found.best == ("8", "4")
    assert found.is_gain
    assert found.gain == pytest.approx(31)
    assert made.seconds <= 60
    assert made.tried[0] == ("1", "1")
    assert made.told == sorted(made.told)


@examples(30)
@given(st.sampled_from(SIZES), st.sampled_from(SIZES), st.floats(0.01, 3))
def test_no_budget_is_exceeded(size: str, delay: str, load_seconds: float) -> None:
    made = surface({"size": size, "delay": delay}, load_seconds=load_seconds)
    found = made.search(budget=60)
    assert made.seconds <= 60
    assert found.num_left or found.best == (size, delay)


def test_the_order_is_the_same_each_time() -> None:
    first, second = surface({"size": "8", "delay": "4"}), surface({"size": "8", "delay": "4"})
    first.search()
    second.search()
    assert first.tried == second.tried


def test_the_limit_of_p99_is_kept() -> None:
    made = Surface(
        [axis("size", *SIZES, given="1")], lambda values: level(100 * int(values["size"]), 3 * int(values["size"]))
    )
    assert made.search().best == ("16",)
    within = Surface(made.axes, made.at).search(p99_ms=13)
    assert within.best == ("4",)
    assert within.outcome.levels[0].p99_ms == 12


def test_a_config_that_meets_the_limit_is_better_than_a_fast_one_that_does_not() -> None:
    made = Surface(
        [axis("size", "1", "16", given="16")], lambda values: level(100 * int(values["size"]), int(values["size"]))
    )
    found = made.search(p99_ms=2)
    assert found.best == ("1",)
    assert found.is_gain
    assert math.isinf(found.gain)


def test_if_nothing_meets_the_limit_the_least_p99_is_looked_for() -> None:
    made = Surface([axis("size", *SIZES, given="4")], lambda values: level(100, 10 + abs(int(values["size"]) - 8)))
    found = made.search(p99_ms=1)
    assert found.best == ("8",)


def test_ties_keep_the_given_config() -> None:
    made = Surface([axis("size", *SIZES, given="2")], lambda _: level(100, 10))
    found = made.search()
    assert found.best == ("2",)
    assert not found.is_gain
    assert found.rival is None


def test_a_gain_below_the_noise_is_none() -> None:
    def at(values: Values) -> LoadLevel:
        return level(108 if values == {"size": "2"} else 100, 10)

    quiet = Surface([axis("size", "1", "2", given="1")], at)
    assert quiet.search().is_gain
    # Of the given config's runs at the end the second is slow by itself.
    noisy = Surface(quiet.axes, at, drift=(*[1.0] * 7, 0.7, *[1.0] * 3))
    found = noisy.search()
    assert noisy.tried[-6:] == [("1",), ("2",)] * 3
    assert found.noise == pytest.approx(0.3)
    assert found.rival == ("2",)
    assert found.gain == pytest.approx(108 / 90 - 1)
    assert not found.is_gain
    assert found.best == ("1",)


def test_a_gain_that_not_every_run_has_is_none() -> None:
    def at(values: Values) -> LoadLevel:
        return level(200 if values == {"size": "2"} else 100, 10)

    # One of its three runs at the end is slower than the given config.
    surface = Surface([axis("size", "1", "2", given="1")], at, drift=(*[1.0] * 8, 0.4, *[1.0] * 2))
    found = surface.search()
    assert found.gain == pytest.approx(480 / 300 - 1)
    assert found.noise == 0
    assert not found.is_gain


def test_failures_are_told_and_cost_nothing_else() -> None:
    best = {"size": "8", "delay": "4"}
    axes = [axis(name, *SIZES, given="1") for name in best]
    made = Surface(axes, lambda values: "no" if values["size"] == "16" else level(hill(values, best), 10))
    found = made.search()
    assert found.best == ("8", "4")
    assert {trial.measurement.failure for trial in found.trials if trial.candidate[0] == "16"} == {"no"}
    assert made.tried.count(("16", "1")) == 1


def test_a_trial_that_hangs_is_bounded_and_leaves_time_for_the_rest() -> None:
    best = {"size": "4", "delay": "4"}
    made = surface(best, hang=lambda values: values["size"] == "2", load_seconds=0.2)
    found = made.search(budget=60)
    assert found.best == ("4", "4")
    assert made.seconds <= 60
    assert max(made.limits[1:]) < 15


def test_values_that_do_not_fit_are_not_tried() -> None:
    made = surface({"size": "8", "delay": "4"})
    made.search(is_valid=lambda candidate: candidate[0] != "16")
    assert not [each for each in made.tried if each[0] == "16"]


def test_latency_looks_for_the_shortest_median() -> None:
    made = Surface([axis("size", *SIZES, given="1")], lambda values: level(1, 10 + abs(int(values["size"]) - 4)))
    assert made.search(objective=Objective.LATENCY).best == ("4",)


def test_a_budget_that_is_too_small_is_named_with_the_least() -> None:
    made = surface({"size": "8"}, load_seconds=3.0)
    with pytest.raises(
        InvalidArgumentError, match=r"a budget of 10 s is too small.* 3\.2 s here, and the least .* (\d+) s"
    ) as told:
        made.search(budget=10)
    least = int(str(told.value).split()[-2])
    surface({"size": "8"}, load_seconds=3.0).search(budget=least + 1)


def test_a_given_config_that_fails_is_an_error() -> None:
    made = Surface([axis("size", *SIZES, given="1")], lambda _: "the file is broken")
    with pytest.raises(InvalidArgumentError, match="cannot be measured: the file is broken"):
        made.search()


def test_a_given_config_that_never_answers_is_an_error_after_a_minute() -> None:
    made = Surface([axis("size", *SIZES, given="1")], lambda _: level(1, 1), hang=lambda _: True)
    with pytest.raises(InvalidArgumentError, match="cannot be measured: not done in time"):
        made.search(budget=1)
    assert made.limits == [60]
