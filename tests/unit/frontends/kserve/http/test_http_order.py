"""Answers come in the order of their requests, whichever are answered at once."""

from collections import deque
from typing import Any

from triune.frontends.kserve.http.order import AnswerOrder


class Cycle:
    """A request; `is_instant`, and its answer is out before its start returns."""

    def __init__(self, name: str, *, is_instant: bool = False) -> None:
        self.name = name
        self.is_instant = is_instant
        self.response_complete = False


class Connection:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.deepest = self.depth = 0
        self.order = AnswerOrder(deque(), self.begin)

    def begin(self, cycle: Any, app: object) -> None:
        assert app == f"app of {cycle.name}"
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        self.begun.append(cycle.name)
        if cycle.is_instant:
            self.finish(cycle)
        self.depth -= 1

    def finish(self, cycle: Cycle) -> None:
        cycle.response_complete = True
        self.order.go_on()

    def add(self, cycle: Any) -> bool:
        return self.order.add(cycle, f"app of {cycle.name}")


def test_those_that_come_while_one_is_answered_wait_in_their_order() -> None:
    connection = Connection()
    assert connection.order.is_idle
    first, second, third = (Cycle(name) for name in "abc")
    assert [connection.add(each) for each in (first, second, third)] == [False, True, True]
    assert connection.begun == ["a"]
    assert not connection.order.is_idle
    connection.finish(first)
    assert connection.begun == ["a", "b"]
    connection.finish(second)
    connection.finish(third)
    assert connection.begun == ["a", "b", "c"]
    assert connection.order.is_idle
    assert not connection.add(Cycle("d"))


def test_one_that_comes_between_does_not_overtake() -> None:
    """An answer is out, and what waits has not been started yet."""
    connection = Connection()
    first, second = Cycle("a"), Cycle("b")
    connection.add(first)
    connection.add(second)
    first.response_complete = True
    assert connection.add(Cycle("c"))
    connection.order.go_on()
    assert connection.begun == ["a", "b"]


def test_hundreds_that_are_answered_at_once_do_not_nest() -> None:
    connection = Connection()
    first = Cycle("slow")
    connection.add(first)
    names = [str(number) for number in range(2000)]
    for name in names:
        assert connection.add(Cycle(name, is_instant=True))
    connection.finish(first)
    assert connection.begun == ["slow", *names]
    assert connection.deepest == 1
    assert connection.order.is_idle
