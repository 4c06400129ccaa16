"""Clients that take nothing of their answers are found by a clock."""

from typing import Any

from triune.frontends.send_timeout import SendTimeout


class Transport:
    """As much of a transport as is looked at."""

    num_unsent = 100

    def get_write_buffer_size(self) -> int:
        return self.num_unsent


def test_who_takes_something_now_and_then_is_never_overdue() -> None:
    transport: Any = Transport()
    timeout = SendTimeout(10)
    assert not timeout.is_overdue(True, transport, 0)
    assert not timeout.is_overdue(True, transport, 9)
    transport.num_unsent = 99
    assert not timeout.is_overdue(True, transport, 11)
    assert not timeout.is_overdue(True, transport, 20)
    assert timeout.is_overdue(True, transport, 21)


def test_the_time_begins_anew_with_each_answer() -> None:
    transport: Any = Transport()
    timeout = SendTimeout(10)
    assert not timeout.is_overdue(True, transport, 0)
    assert not timeout.is_overdue(False, transport, 5)
    assert not timeout.is_overdue(True, transport, 9)
    assert not timeout.is_overdue(True, transport, 18)
    assert timeout.is_overdue(True, transport, 19)
