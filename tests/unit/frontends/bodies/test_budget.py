"""The memory budget asks for freed memory to be returned to the system."""

import pytest

from triune.core.errors import UnavailableError
from triune.core.heap import HEAP, LARGE_BYTES
from triune.frontends.bodies.budget import MemoryBudget


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an element for each time that memory was to be returned."""
    calls: list[int] = []
    monkeypatch.setattr(type(HEAP), "give_back_soon", lambda _: calls.append(1))
    return calls


def test_many_requests_that_are_large_together(given_back: list[int]) -> None:
    budget = MemoryBudget(4 * LARGE_BYTES)
    held = [budget.reserve(LARGE_BYTES // 8) for _ in range(16)]
    for each in held[:7]:
        each.release()
    assert not given_back
    held[7].resize(0)
    assert len(given_back) == 1
    for each in held[7:]:
        each.release()
    assert len(given_back) == 2


def test_what_is_refused_was_received(given_back: list[int]) -> None:
    budget = MemoryBudget(LARGE_BYTES)
    with budget.reserve(LARGE_BYTES), pytest.raises(UnavailableError):
        budget.reserve(1)
    assert len(given_back) == 2, "once for the refused one, once for the other"
