"""What a load adds to the memory of the process."""

import numpy as np

from triune.repository.memory.meter import Growth, LoadMeter


def test_loads_that_overlap_are_measured_together() -> None:
    values = iter(range(0, 1000, 10))
    meter = LoadMeter(lambda: next(values))
    meter.begin()
    assert meter.end() == Growth(1, own_bytes=10)
    meter.begin()
    meter.begin()
    assert meter.end() == Growth(2)
    meter.begin()
    assert meter.end() == Growth(2)
    assert meter.end() == Growth(2, group_bytes=10)
    meter.begin()
    meter.leave()
    meter.begin()
    assert meter.end() == Growth(4, own_bytes=10)


def test_this_process_is_measured() -> None:
    meter = LoadMeter()
    meter.begin()
    held = np.ones(64 << 20, np.uint8)
    growth = meter.end().own_bytes
    assert growth is not None
    assert held.nbytes <= growth + (1 << 20)
    assert growth < 2 * held.nbytes


def test_what_shrinks_has_added_nothing() -> None:
    values = iter((7, 5))
    meter = LoadMeter(lambda: next(values))
    meter.begin()
    assert meter.end().own_bytes == 0


def test_what_requests_hold_is_not_the_models() -> None:
    held, in_use = [0], [1 << 30]
    meter = LoadMeter(lambda: in_use[0], lambda: held[0])
    meter.begin()
    held[0], in_use[0] = 300 << 20, (1 << 30) + (310 << 20)
    assert meter.end() == Growth(1, own_bytes=10 << 20, is_certain=False)
    meter.begin()
    # What was reserved and never sent does not make the model larger.
    held[0] = 0
    assert meter.end() == Growth(2, own_bytes=0, is_certain=False)
    meter.begin()
    held[0], in_use[0] = 1000, in_use[0] + 500_000
    assert meter.end() == Growth(3, own_bytes=499_000)
