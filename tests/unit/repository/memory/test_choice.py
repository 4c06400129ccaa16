"""Which models are unloaded for room."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from support.examples import examples
from triune.repository.memory.choice import Candidate, choose, choose_busy


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
    assert choose_busy([busier, busy], 1) == ["busy"]
    assert choose_busy([busier, busy, NEW], 1) == ["new"]
    assert list(choose_busy([], 1)) == []


def test_busy_ones_that_free_too_little_are_not_drained_where_others_suffice() -> None:
    small, large = candidate("small", 4, 9), candidate("large", 100, 5, is_idle=False)
    assert choose_busy([small, large], 69) == ["large"]
    assert choose_busy([small, large], 4) == ["small"]
    assert choose_busy([small, large], 101) == ["large", "small"], "requests to the first one wait longest"
    assert list(choose_busy([small, large], 105)) == [], "it would be in vain"
    hot, one, other = (
        candidate(name, size, 0, is_idle=False) for name, size in (("hot", 4), ("one", 60), ("other", 60))
    )
    assert choose_busy([hot, one, other], 100) == ["one", "other"]


_CANDIDATES = st.lists(
    st.builds(
        lambda num_bytes, used, is_idle, is_settled: (num_bytes, used, is_idle, is_settled),
        st.integers(1, 100),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    max_size=9,
)


@examples(400)
@given(figures=_CANDIDATES, lacking=st.integers(1, 400))
def test_no_model_goes_in_vain(figures: list[tuple[int, int, bool, bool]], lacking: int) -> None:
    candidates = {
        f"m{at}": Candidate(f"m{at}", num_bytes, is_idle, (used,), is_settled)
        for at, (num_bytes, used, is_idle, is_settled) in enumerate(figures)
    }
    for names, may_be_busy in (
        (choose([*candidates.values()], lacking), False),
        (choose_busy([*candidates.values()], lacking), True),
    ):
        able = [each for each in candidates.values() if each.is_settled and (each.is_idle or may_be_busy)]
        freed = sum(candidates[name].num_bytes for name in names)
        assert bool(names) is (sum(each.num_bytes for each in able) >= lacking)
        assert {*names} <= {each.name for each in able}
        if names:
            assert freed >= lacking
            assert all(freed - candidates[name].num_bytes < lacking for name in names)


def test_one_that_was_just_loaded_keeps_its_place() -> None:
    fresh = replace(OLD, is_settled=False)
    assert choose([fresh, MIDDLE], 5) == ["middle"]
    assert list(choose([fresh], 5)) == []
    assert choose_busy([fresh, MIDDLE], 5) == ["middle"]
    assert list(choose_busy([fresh], 5)) == []
