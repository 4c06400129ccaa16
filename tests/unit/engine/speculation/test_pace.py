"""How many tokens are guessed, by what they cost and how often they were right."""

import numpy as np
import pytest

from triune.engine.speculation.pace import MAX_DRAFTS, Accuracy, StepCost


def test_right_guesses_make_more_and_wrong_ones_fewer() -> None:
    accuracy = Accuracy()
    first = accuracy.num_worth(0.2)
    assert 1 < first < MAX_DRAFTS
    for _ in range(10):
        accuracy.observe(8, 8)
    assert accuracy.num_worth(0.2) == MAX_DRAFTS
    for _ in range(20):
        accuracy.observe(0, 4)
    assert accuracy.rate < 0.2
    assert accuracy.num_worth(0.2) == 0


def test_a_sequence_whose_guesses_failed_tries_again_later() -> None:
    accuracy = Accuracy()
    for _ in range(20):
        accuracy.observe(0, 4)
    num_steps = 0
    while not accuracy.num_worth(0.3):
        accuracy.rest()
        num_steps += 1
    assert 10 < num_steps < 200


def test_only_guesses_that_were_checked_count() -> None:
    one, other = Accuracy(), Accuracy()
    one.observe(2, 3)
    other.observe(2, 16)
    assert one.rate == other.rate


@pytest.mark.parametrize(("constant", "token"), [(7.0, 1.8), (20.0, 1.0), (0.5, 2.0), (50.0, 0.01)])
def test_the_cost_of_a_step_is_found_through_noise(constant: float, token: float) -> None:
    rng, cost = np.random.default_rng(0), StepCost()
    for _ in range(400):
        number = int(rng.integers(1, 20))
        cost.observe(number, (constant + token * number) * float(rng.uniform(0.9, 1.3)) / 1e3)
    for number in (1, 8):
        expected = 1.2 * number * token / (constant + token * number)
        assert cost.least_rate(number, number) == pytest.approx(min(max(expected, 0.1), 1.0), rel=0.25)


def test_guesses_that_take_long_to_make_are_not_worth_it() -> None:
    cost = StepCost()
    for number in (1, 5, 9) * 20:
        cost.observe(number, 0.01 + 0.0001 * number)
    assert cost.least_rate(1, 1) < 0.2
    cost.observe_guesses(4, 4 * 0.001)
    assert 0.1 < cost.least_rate(1, 1) < 0.2
    for _ in range(20):
        cost.observe_guesses(4, 4 * 0.009)
    assert cost.least_rate(1, 1) > 0.9
    for _ in range(400):
        cost.observe_guesses(0, 0.0)
    assert cost.least_rate(1, 1) < 0.2, "they are tried again, since the machine may have been busy"


def test_without_knowledge_guesses_are_worth_it_for_few_sequences_only() -> None:
    cost = StepCost()
    assert cost.least_rate(1, 1) < 0.25
    assert cost.least_rate(64, 64) > 0.8
    for _ in range(1000):
        cost.observe(1, 0.01)
    assert 0.1 <= cost.least_rate(1, 1) < 0.5


def test_steps_that_were_slow_by_chance_do_not_end_guesses_for_good() -> None:
    cost = StepCost()
    cost.observe(1, 0.1)
    for _ in range(10):
        cost.observe(1, 0.01)
    assert cost.least_rate(1, 1) < 0.3, "the first step was slow"
    cost.observe(9, 1.0)
    assert cost.least_rate(1, 1) == 1.0
    for _ in range(300):
        cost.observe(1, 0.01)
    assert cost.least_rate(1, 1) < 0.3
