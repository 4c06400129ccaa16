"""When a model is needed next."""

import random

import pytest

from triune.repository.memory.arrivals import ArrivalPattern

S = 1_000_000_000


def seen(*seconds: float) -> ArrivalPattern:
    pattern = ArrivalPattern()
    for each in seconds:
        pattern.see(round(each * S))
    return pattern


def test_a_periodic_model_is_needed_about_a_period_after_its_last_use() -> None:
    pattern = seen(0, 60, 120, 180)
    assert pattern.window() == (54 * S, 66 * S)
    assert pattern.needed_ns(190 * S) == 234 * S
    assert pattern.needed_ns(240 * S) == 240 * S, "within the window it is needed now"
    assert pattern.needed_ns(246 * S) == 246 * S
    assert pattern.needed_ns(247 * S) is None, "it did not come"


def test_the_idle_time_counts_from_the_end_of_a_visit() -> None:
    # Each visit lasts 3 s: uses with pauses of at most 2 s.
    pattern = seen(*(start + second for start in (0, 30, 60, 90) for second in range(4)))
    assert pattern.num_gaps == 3
    assert pattern.window() == (int(27 * S * 0.9), int(27 * S * 1.1))


def test_too_few_and_irregular_uses_tell_nothing() -> None:
    assert seen().window() is None
    assert seen(0, 60, 120).needed_ns(130 * S) is None
    assert seen(0, 5, 10, 15, 20, 1000).window() is None
    assert seen().needed_ns(5) is None


def test_random_arrivals_are_needed_from_soon_on() -> None:
    chance = random.Random(3)
    times = [0.0]
    for _ in range(32):
        times.append(times[-1] + 2.1 + chance.expovariate(1 / 8))
    pattern = seen(*times)
    window = pattern.window()
    assert window is not None
    assert window[0] < 4 * S
    assert window[1] > 16 * S


def test_only_the_last_idle_times_count() -> None:
    pattern = seen(*range(0, 40 * 10, 10), *range(400, 400 + 33 * 60, 60))
    assert pattern.num_gaps == 32
    assert pattern.window() == (54 * S, 66 * S)


@pytest.mark.parametrize(("now", "expected"), [(100, 190), (20, 30)])
def test_without_a_pattern_it_is_likely_as_far_ahead_as_its_last_use_is_back(now: int, expected: int) -> None:
    assert seen(10).likely_ns(now * S) == expected * S


def test_with_a_pattern_it_is_likely_when_it_is_needed() -> None:
    assert seen(0, 60, 120, 180).likely_ns(190 * S) == 234 * S
    assert seen(0, 60, 120, 180).likely_ns(280 * S) == 380 * S
