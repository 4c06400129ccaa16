"""Which models are unloaded for room."""

from dataclasses import replace

from triune.repository.memory.choice import Candidate, choose, first_to_drain


def candidate(name: str, num_bytes: int, used: int, *, is_idle: bool = True) -> Candidate:
    return Candidate(name, num_bytes, is_idle, (used,))


OLD, MIDDLE, NEW = candidate("old", 10, 1), candidate("middle", 20, 2), candidate("new", 40, 3)


def test_the_least_recently_used_go_first() -> None:
    assert choose([NEW, OLD, MIDDLE], 5) == ["old"]
    assert choose([NEW, OLD, MIDDLE], 25) == ["old", "middle"]
    assert choose([NEW, OLD, MIDDLE], 70) == ["old", "middle", "new"]


def test_none_goes_in_vain() -> None:
    # Old and middle free 30, too little; new alone would do, and then old and middle stay.
    assert choose([OLD, MIDDLE, NEW], 40) == ["new"]
    # Of the two that could stay, the more recently used one does.
    assert choose([OLD, MIDDLE, NEW], 50) == ["old", "new"]
    assert choose([OLD, MIDDLE, NEW], 0) == []


def test_busy_ones_stay_and_too_little_unloads_nothing() -> None:
    busy = candidate("busy", 100, 0, is_idle=False)
    assert choose([busy, NEW], 30) == ["new"]
    assert list(choose([busy, NEW], 50)) == []
    assert list(choose([], 1)) == []


def test_an_idle_one_is_drained_before_a_busy_one_then_the_least_recently_used() -> None:
    busy, busier = candidate("busy", 1, 0, is_idle=False), candidate("busier", 1, 5, is_idle=False)
    assert first_to_drain([busier, busy], 1) == "busy"
    assert first_to_drain([busier, busy, NEW], 1) == "new"
    assert first_to_drain([], 1) is None


def test_one_that_frees_too_little_is_not_drained_where_another_suffices() -> None:
    small, large = candidate("small", 4, 9), candidate("large", 100, 5, is_idle=False)
    assert first_to_drain([small, large], 69) == "large"
    assert first_to_drain([small, large], 4) == "small"
    assert first_to_drain([small, large], 101) == "small"


def test_one_that_was_just_loaded_keeps_its_place() -> None:
    fresh = replace(OLD, is_settled=False)
    assert choose([fresh, MIDDLE], 5) == ["middle"]
    assert list(choose([fresh], 5)) == []
    assert first_to_drain([fresh, MIDDLE], 5) == "middle"
    assert first_to_drain([fresh], 5) is None
