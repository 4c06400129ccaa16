"""Which layers go back to a higher precision first."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.compression.ladder import Step, fewest, rungs_after, steps_of


def test_the_noisiest_is_next() -> None:
    steps = steps_of({"a": [1.0, 0.1, 0.0], "b": [20.0, 2.0, 0.5, 0.0], "c": [0.2, 0.2, 0.0]})
    expected = [("b", 1), ("b", 2), ("a", 1), ("b", 3), ("c", 2), ("a", 2)]
    assert [(each.layer, each.rung) for each in steps] == expected
    assert rungs_after(steps[:3]) == {"b": 2, "a": 1}
    assert rungs_after([]) == {}


def test_ties_keep_the_order_of_layers() -> None:
    assert [each.layer for each in steps_of({"z": [1, 0], "a": [1, 0], "m": [1, 0]})] == ["z", "a", "m"]


@given(st.dictionaries(st.text(max_size=3), st.lists(st.floats(0, 1e3), min_size=1, max_size=5), max_size=6))
def test_each_step_lessens_noise(noise: dict[str, list[float]]) -> None:
    rungs = dict.fromkeys(noise, 0)
    for step in steps_of(noise):
        assert noise[step.layer][step.rung] < noise[step.layer][rungs[step.layer]]
        assert step.rung > rungs[step.layer]
        rungs[step.layer] = step.rung
    # At the end nothing is left that would be quieter.
    assert all(noise[name][rung] <= min(noise[name][rung:]) for name, rung in rungs.items())


@dataclass(frozen=True)
class Trial:
    count: int
    holds: bool


class Trials:
    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.counts: list[int] = []

    def attempt(self, count: int) -> Trial:
        self.counts.append(count)
        return Trial(count, count >= self.needed)


@pytest.mark.parametrize("most", [1, 2, 7, 64])
def test_the_fewest_that_hold(most: int) -> None:
    for needed in range(1, most + 2):
        trials = Trials(needed)
        found = fewest(most, trials.attempt)
        assert found.holds == (needed <= most)
        assert found.count == min(needed, most)
        assert len(trials.counts) <= 2 * most.bit_length() + 2


def test_a_step_is_named() -> None:
    assert rungs_after([Step("a", 1), Step("a", 3)]) == {"a": 3}
