"""Placement by dynamic programming is what trying all placements finds."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from triune.planning.placement import (
    PathCosts,
    place_cheapest,
    place_fastest,
    place_pipeline,
    segment_times,
)

MOST_OPS, MOST_UNITS = 6, 3


@st.composite
def path_costs(draw: st.DrawFn, num_ops: int | None = None, num_units: int | None = None) -> PathCosts:
    num_ops = num_ops or draw(st.integers(1, MOST_OPS))
    num_units = num_units or draw(st.integers(1, MOST_UNITS))
    number = st.integers(0, 40).map(lambda each: each / 8)
    refusable = st.one_of(number, st.just(np.inf))

    def array(kind: Any, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(kind, min_size=size, max_size=size)), np.float64).reshape(shape)

    ops = array(refusable, num_ops, num_units)
    # The first unit takes all.
    ops[:, 0] = array(number, num_ops)
    switch = array(number, num_units, num_units)
    np.fill_diagonal(switch, 0)
    return PathCosts(ops, array(number, num_units), switch, array(number, num_ops), array(number, num_units))


def all_paths(costs: PathCosts) -> list[list[int]]:
    found = [list(path) for path in itertools.product(range(costs.num_units), repeat=costs.num_ops)]
    return [path for path in found if np.isfinite(costs.total(path))]


@given(path_costs())
@examples(100)
def test_the_fastest_is_the_least_of_all(costs: PathCosts) -> None:
    assert costs.total(place_fastest(costs)) == min(map(costs.total, all_paths(costs)))


@given(path_costs())
def test_the_total_is_the_sum_of_the_segments(costs: PathCosts) -> None:
    for path in all_paths(costs)[:50]:
        times = segment_times(costs, path)
        assert len(times) == len(list(itertools.groupby(path)))
        assert np.isclose(sum(times), costs.total(path))


@given(path_costs(), st.data())
def test_higher_costs_give_no_faster_plan(costs: PathCosts, data: st.DataObject) -> None:
    before = costs.total(place_fastest(costs))
    more = data.draw(st.integers(0, 8))
    position = data.draw(st.integers(0, costs.num_ops - 1))
    ops = costs.ops.copy()
    ops[position] += more
    dearer = PathCosts(ops, costs.launch + more, costs.switch, costs.transfer, costs.output)
    assert dearer.total(place_fastest(dearer)) >= before


@given(st.data())
@examples(100)
def test_the_cheapest_within_a_limit_is_the_least_of_all(data: st.DataObject) -> None:
    num_ops, num_units = data.draw(st.integers(1, 5)), data.draw(st.integers(1, MOST_UNITS))
    time = data.draw(path_costs(num_ops, num_units))
    energy = data.draw(path_costs(num_ops, num_units))
    ops = np.where(np.isinf(time.ops), np.inf, np.where(np.isinf(energy.ops), 5.0, energy.ops))
    energy = PathCosts(ops, energy.launch, energy.switch, energy.transfer, energy.output)
    limit = data.draw(st.integers(0, 30))
    within = [path for path in all_paths(time) if time.total(path) <= limit]
    found = place_cheapest(time, energy, limit)
    if not within:
        assert found is None
        return
    assert found is not None
    assert time.total(found) <= limit
    assert energy.total(found) == min(map(energy.total, within))


@given(path_costs())
@examples(100)
def test_a_pipeline_has_the_fastest_slowest_segment(costs: PathCosts) -> None:
    def is_pipeline(path: list[int]) -> bool:
        units = [unit for unit, _ in itertools.groupby(path)]
        return len(units) == len(set(units))

    path = place_pipeline(costs)
    assert is_pipeline(path)
    best = min(max(segment_times(costs, each)) for each in all_paths(costs) if is_pipeline(each))
    assert np.isclose(max(segment_times(costs, path)), best)


def test_a_thousand_operations_are_placed() -> None:
    rng = np.random.default_rng(3)
    ops = rng.random((1000, 3))
    costs = PathCosts(ops, np.full(3, 0.5), 1 - np.eye(3), np.full(1000, 0.1), np.zeros(3))
    fastest = costs.total(place_fastest(costs))
    assert fastest <= min(costs.total([unit] * 1000) for unit in range(3))
    energy = PathCosts(rng.random((1000, 3)), np.zeros(3), np.zeros((3, 3)), np.zeros(1000), np.zeros(3))
    cheapest = place_cheapest(costs, energy, fastest * 1.2)
    assert cheapest is not None
    assert costs.total(cheapest) <= fastest * 1.2
    assert energy.total(cheapest) <= energy.total(place_fastest(costs))
    assert max(segment_times(costs, place_pipeline(costs))) < fastest
