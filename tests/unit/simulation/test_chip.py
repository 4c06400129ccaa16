"""Batches that run at once on a simulated chip: who slows whom down, and by how much."""

import pytest

from support.simulated import MS, cost
from triune.core.clock import VirtualClock
from triune.core.units import Unit
from triune.simulation.chip import SimulatedChip
from triune.simulation.profile import BatchCost

WATTS = {Unit.CPU: 1.0, Unit.AMX: 2.0, Unit.GPU: 10.0, Unit.ANE: 4.0}


class Bench:
    def __init__(self, gb_per_s: float | None = 100.0) -> None:
        self.clock = VirtualClock()
        self.chip = SimulatedChip(self.clock, lambda unit: Unit.CPU if unit is Unit.AMX else unit, WATTS, gb_per_s)
        self.ended: dict[str, tuple[float, float]] = {}

    def begin(self, name: str, unit: Unit, batch: BatchCost) -> None:
        def done(joules: float) -> None:
            self.ended[name] = (round(self.clock.now_ns() / MS, 3), round(joules, 6))

        self.chip.begin(unit, batch, done)

    def wait(self, ms: float = 1000) -> None:
        self.clock.advance(int(ms * MS))


def test_a_batch_alone_takes_what_is_predicted() -> None:
    bench = Bench()
    bench.begin("a", Unit.GPU, cost({Unit.GPU: 5}, joules=0.08, gigabytes=0.2))
    bench.wait()
    assert bench.ended == {"a": (5.0, 0.08)}
    assert bench.chip.busy_ns[Unit.GPU] == pytest.approx(5 * MS)


def test_units_with_hardware_of_their_own_do_not_slow_each_other_down() -> None:
    bench = Bench()
    bench.begin("a", Unit.GPU, cost({Unit.GPU: 5}))
    bench.begin("b", Unit.ANE, cost({Unit.ANE: 8}))
    bench.wait()
    assert {name: ms for name, (ms, _) in bench.ended.items()} == {"a": 5.0, "b": 8.0}


def test_a_pool_is_shared_equally_and_so_is_what_it_draws() -> None:
    bench = Bench()
    bench.begin("a", Unit.CPU, cost({Unit.CPU: 6}, joules=0.006))
    bench.wait(2)
    bench.begin("b", Unit.AMX, cost({Unit.AMX: 2}, joules=0.004))
    bench.wait()
    # From 2 ms on each has half: b ends after 4 ms, and a, with 2 ms left then, at 8.
    assert {name: ms for name, (ms, _) in bench.ended.items()} == {"a": 8.0, "b": 6.0}
    assert sum(joules for _, joules in bench.ended.values()) == pytest.approx(0.010)


def test_who_asks_for_little_of_the_memory_gets_it_all() -> None:
    bench = Bench(gb_per_s=100.0)
    bench.begin("little", Unit.ANE, cost({Unit.ANE: 10}, gigabytes=0.1))
    bench.begin("much", Unit.GPU, cost({Unit.GPU: 10}, gigabytes=0.9, joules=0.1))
    bench.begin("most", Unit.AMX, cost({Unit.AMX: 10}, gigabytes=1.0))
    bench.wait(10.001)
    assert list(bench.ended) == ["little"]
    bench.wait()
    # 10 of 100 GB/s are asked for and given; the others have 45 each until 10 ms, then 50, then what they ask for.
    # "much" moves 0.45 GB in 10 ms, then 0.45 at 50 GB/s: 19 ms. "most" has 0.1 GB left then.
    assert bench.ended["much"][0] == 19.0
    assert bench.ended["most"][0] == 20.0
    assert bench.ended["much"][1] == pytest.approx(0.19), "it draws its power while it waits for the memory"


def test_without_a_known_bandwidth_the_memory_has_no_limit() -> None:
    bench = Bench(gb_per_s=None)
    for name, unit in (("a", Unit.GPU), ("b", Unit.ANE)):
        bench.begin(name, unit, cost({unit: 10}, gigabytes=9))
    bench.wait()
    assert {ms for ms, _ in bench.ended.values()} == {10.0}


def test_a_batch_that_passes_through_two_units_asks_each_for_its_part() -> None:
    bench = Bench()
    bench.begin("cut", Unit.ANE, cost({Unit.ANE: 5, Unit.AMX: 5}))
    bench.begin("whole", Unit.CPU, cost({Unit.CPU: 6}))
    bench.wait()
    # The cores are asked for 1.5 times what they have.
    assert bench.ended["whole"][0] == 9.0
    assert bench.ended["cut"][0] == 13.0
