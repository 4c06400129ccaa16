"""What steps are expected to take, from those that were measured."""

import pytest

from triune.engine.replicas.rates import Curve, Rates, Speeds

MS = 1_000_000


def test_a_curve_is_flat_before_its_first_point_a_line_between_two_and_in_proportion_after_the_last() -> None:
    curve = Curve()
    assert not curve
    assert curve.of(8) == 0
    curve.record(2, 10 * MS)
    curve.record(8, 16 * MS)
    assert curve
    assert [curve.of(size) / MS for size in (1, 2, 5, 8, 16)] == [10, 10, 13, 16, 32]


def test_a_curve_follows_what_is_measured() -> None:
    curve = Curve()
    curve.record(4, 100 * MS)
    for _ in range(40):
        curve.record(4, 10 * MS)
    assert curve.of(4) / MS == pytest.approx(10, abs=0.1)


def test_the_time_for_answers_is_taken_off_a_step_that_reads_prompts() -> None:
    speeds = Speeds()
    speeds.record(0, 4, 10 * MS)
    speeds.record(100, 4, 60 * MS)
    assert speeds.prompts.of(100) == 50 * MS
    speeds.record(0, 0, 5 * MS)
    assert speeds.answers.of(4) == 10 * MS


def test_a_step_that_was_quicker_than_its_answers_alone_still_costs_its_prompts_their_part() -> None:
    speeds = Speeds()
    speeds.record(0, 1, 100 * MS)
    speeds.record(3, 1, 40 * MS)
    assert speeds.prompts.of(3) == 30 * MS


def test_long_prompts_take_several_steps() -> None:
    rates = Rates(100)
    rates.record(100, 0, 50 * MS, is_beside=False)
    rates.record(10, 0, 20 * MS, is_beside=False)
    assert rates.prompt_ns(210, is_beside=False) == 120 * MS
    assert rates.prompt_ns(0, is_beside=False) == 0


def test_what_was_not_measured_beside_others_is_as_fast_as_alone() -> None:
    rates = Rates(100)
    rates.record(0, 1, 10 * MS, is_beside=False)
    assert rates.answer_ns(1, is_beside=True) == 10 * MS
    rates.record(0, 1, 30 * MS, is_beside=True)
    assert [rates.answer_ns(1, is_beside=each) for each in (False, True)] == [10 * MS, 30 * MS]
