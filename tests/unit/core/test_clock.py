from triune.core.clock import VirtualClock


def test_virtual_time_makes_calls_in_order_at_their_time() -> None:
    clock = VirtualClock()
    calls: list[tuple[str, int]] = []
    clock.call_at(20, lambda: calls.append(("late", clock.now_ns())))
    clock.call_at(10, lambda: clock.call_at(15, lambda: calls.append(("nested", clock.now_ns()))))
    clock.call_at(12, lambda: calls.append(("cancelled", 0))).cancel()
    clock.advance(19)
    assert calls == [("nested", 15)]
    clock.advance(1)
    assert calls == [("nested", 15), ("late", 20)]
    assert clock.now_ns() == 20
