"""Estimates of how long batches take."""

import math

from triune.arbiter.cost import CostEstimate


def test_a_first_batch_that_was_disturbed_does_not_count() -> None:
    cost = CostEstimate()
    cost.record(16, 2_000_000)
    cost.record(16, 10_000)
    cost.record(16, 12_000)
    assert cost.of(16) == 10_000
    cost.record(16, 20_000)
    assert 10_000 < cost.of(16) < 20_000


def test_a_disturbed_batch_counts_little_and_a_lasting_change_much() -> None:
    cost = CostEstimate()
    for _ in range(5):
        cost.record(16, 1_000)
    cost.record(16, 100_000)
    assert cost.of(16) == 1_400
    for _ in range(20):
        cost.record(16, 100_000)
    assert cost.of(16) > 80_000


def test_an_unknown_size_is_scaled_from_the_nearest() -> None:
    cost = CostEstimate()
    assert cost.of(16) == 0
    cost.record(16, 1_000)
    cost.record(256, 12_000)
    assert cost.of(128) == 6_000
    assert cost.of(32) == 2_000


def test_a_size_that_no_longer_occurs_is_estimated_from_others() -> None:
    cost = CostEstimate()
    cost.record(256, 160_000)
    for _ in range(20):
        cost.record(16, 1_000)
    assert cost.of(256) == 16_000


def test_a_size_keeps_its_own_time_where_none_grows_old() -> None:
    estimate = CostEstimate(stale_after=math.inf)
    for _ in range(3):
        estimate.record(1, 5 * 1_000_000)
    for _ in range(50):
        estimate.record(64, 64 * 1_000_000)
    assert estimate.knows(1)
    assert estimate.of(1) == 5 * 1_000_000
    assert not estimate.knows(16)


def test_a_first_batch_of_a_size_that_was_slow_does_not_outweigh_what_other_sizes_took() -> None:
    """A library compiles kernels for a new shape. The unit would never get another batch of that size."""
    estimate = CostEstimate()
    for _ in range(3):
        estimate.record(1, 4_000)
    assert estimate.of(4) == 16_000
    estimate.record(4, 200_000)
    assert estimate.of(4) == 16_000
    assert not estimate.knows(4)
    estimate.record(4, 11_000)
    assert estimate.of(4) == 11_000
    estimate.record(4, 12_000)
    assert estimate.knows(4)
    assert estimate.of(4) == 11_000


def test_of_sizes_of_which_all_ran_too_seldom_each_has_its_own_time() -> None:
    estimate = CostEstimate()
    estimate.record(1, 4_000)
    estimate.record(16, 20_000)
    assert (estimate.of(1), estimate.of(16)) == (4_000, 20_000)
