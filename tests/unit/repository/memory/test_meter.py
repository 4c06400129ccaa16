"""What a load adds to the memory of the process."""

import numpy as np

from triune.repository.memory.meter import LoadMeter


def test_loads_that_overlap_are_not_measured() -> None:
    values = iter(range(0, 1000, 10))
    meter = LoadMeter(lambda: next(values))
    one = meter.begin()
    assert meter.end(one) == 10
    first, second = meter.begin(), meter.begin()
    assert meter.end(second) is None
    assert meter.end(first) is None, "another began meanwhile"
    failed = meter.begin()
    meter.leave()
    assert failed.is_alone
    assert meter.end(meter.begin()) == 10


def test_this_process_is_measured() -> None:
    meter = LoadMeter()
    mark = meter.begin()
    held = np.ones(64 << 20, np.uint8)
    growth = meter.end(mark)
    assert growth is not None
    assert held.nbytes <= growth + (1 << 20)
    assert growth < 2 * held.nbytes


def test_freed_memory_is_not_charged() -> None:
    meter = LoadMeter(lambda: 7)
    assert meter.end(meter.begin()) == 0
