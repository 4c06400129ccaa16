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
