"""The ledger: what a meter counted goes to the works of the time, and the rest is idle."""

import pytest

from support.energy_meters import rail
from triune.core.clock import VirtualClock
from triune.core.energy import Bill, EnergyKind, Phase, Share, report_of
from triune.core.units import Unit
from triune.hardware.energy.combined import AbsentMeter, CombinedMeter
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ledger import EnergyLedger
from triune.hardware.energy.meter import RailRole
from triune.hardware.energy.split import divide

MS = 1_000_000
MEASURED, ESTIMATED = EnergyKind.MEASURED, EnergyKind.ESTIMATED


class World:
    """A ledger over a meter by hand, with a rail `cpu` and one `gpu`."""

    def __init__(self, *rails) -> None:
        self.clock = VirtualClock()
        self.meter = HandMeter(rails or [rail("cpu"), rail("gpu", frozenset({Unit.GPU}))], self.clock)
        self.ledger = EnergyLedger(self.meter)

    def sample(self, **joules: float) -> None:
        for name, value in joules.items():
            self.meter.feed(name, value)
        self.ledger.sample()
        self.ledger.check()

    def totals(self, name: str):
        (found,) = [each.totals for each in self.ledger.rails if each.rail.name == name]
        return found


def test_a_work_has_its_part_of_the_time_and_the_rest_is_idle() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    world.clock.advance(25 * MS)
    work = account.begin(world.clock.now_ns())
    world.clock.advance(50 * MS)
    work.ended_ns = world.clock.now_ns()
    world.clock.advance(25 * MS)
    world.sample(cpu=8.0)
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(4.0)}
    totals = world.totals("cpu")
    assert (totals.metered, totals.charged, totals.idle) == pytest.approx((8.0, 4.0, 4.0))
    assert totals.watts == pytest.approx(80.0)


def test_a_work_that_goes_on_is_charged_interval_by_interval() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    work = account.begin(0)
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(1.0)}
    world.clock.advance(50 * MS)
    work.ended_ns = world.clock.now_ns()
    world.clock.advance(50 * MS)
    world.sample(cpu=2.0)
    world.clock.advance(100 * MS)
    world.sample(cpu=4.0)
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(2.0)}
    assert world.totals("cpu").idle == pytest.approx(5.0)


def test_works_at_the_same_time_have_equal_parts() -> None:
    world = World()
    one, other = (world.ledger.account(name, 1, Unit.CPU) for name in ("one", "other"))
    first = one.begin(0)
    world.clock.advance(50 * MS)
    second = other.begin(world.clock.now_ns())
    world.clock.advance(50 * MS)
    first.ended_ns = second.ended_ns = world.clock.now_ns()
    world.sample(cpu=4.0)
    assert one.joules[Phase.INFER, MEASURED] == pytest.approx(3.0)
    assert other.joules[Phase.INFER, MEASURED] == pytest.approx(1.0)


def test_units_with_one_rail_share_it_and_other_rails_are_not_theirs() -> None:
    world = World()
    cpu, amx, gpu = (world.ledger.account("m", 1, unit) for unit in (Unit.CPU, Unit.AMX, Unit.GPU))
    works = [each.begin(0) for each in (cpu, amx, gpu)]
    world.clock.advance(100 * MS)
    for work in works:
        work.ended_ns = world.clock.now_ns()
    world.sample(cpu=2.0, gpu=7.0)
    assert [each.joules[Phase.INFER, MEASURED] for each in (cpu, amx, gpu)] == pytest.approx([1.0, 1.0, 7.0])


def test_an_emulated_unit_is_the_cpus_work() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.ANE, is_emulated=True)
    assert account.unit is Unit.CPU


def test_quick_batches_are_charged_by_their_time() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    account.quick_ns += 30 * MS
    world.clock.advance(100 * MS)
    world.sample(cpu=10.0)
    assert account.joules[Phase.INFER, MEASURED] == pytest.approx(3.0)
    world.clock.advance(100 * MS)
    world.sample(cpu=10.0)
    assert account.joules[Phase.INFER, MEASURED] == pytest.approx(3.0)


def test_quick_batches_beside_a_work_share_its_time() -> None:
    world = World()
    quick, slow = (world.ledger.account(name, 1, Unit.CPU) for name in ("quick", "slow"))
    quick.quick_ns += 50 * MS
    slow.begin(0)
    world.clock.advance(100 * MS)
    world.sample(cpu=3.0)
    assert quick.joules[Phase.INFER, MEASURED] == pytest.approx(1.0)
    assert slow.joules[Phase.INFER, MEASURED] == pytest.approx(2.0)


def test_a_batch_is_charged_by_rows() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    bill = Bill()
    account.begin_batch(0, [(3, bill), (1, None)])
    world.clock.advance(100 * MS)
    world.sample(cpu=4.0)
    assert bill.joules == {(Phase.INFER, MEASURED): pytest.approx(3.0)}
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(4.0)}


async def test_prefill_and_decode_are_apart() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    bill = Bill()
    account.begin(0, [Share(Phase.PREFILL, 0.75, bill), Share(Phase.DECODE, 0.25)])
    world.clock.advance(100 * MS)
    world.sample(cpu=4.0)
    assert account.joules == {
        (Phase.PREFILL, MEASURED): pytest.approx(3.0),
        (Phase.DECODE, MEASURED): pytest.approx(1.0),
    }
    assert await report_of([bill]) == {
        "kind": "measured",
        "joules": pytest.approx(3.0),
        "prefill_joules": pytest.approx(3.0),
    }


def test_a_detail_is_shown_and_charged_to_nobody() -> None:
    world = World(rail("package"), rail("core", role=RailRole.DETAIL))
    account = world.ledger.account("m", 1, Unit.CPU)
    account.begin(0)
    world.clock.advance(100 * MS)
    world.sample(package=4.0, core=3.0)
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(4.0)}
    assert world.totals("core").metered == pytest.approx(3.0)


def test_memory_is_charged_to_all_units_that_use_it() -> None:
    world = World(rail("cpu"), rail("dram", frozenset(Unit), RailRole.MEMORY))
    account = world.ledger.account("m", 1, Unit.CPU)
    account.begin(0)
    world.clock.advance(100 * MS)
    world.sample(cpu=4.0, dram=1.0)
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(5.0)}


async def test_a_unit_without_its_rail_has_no_joules_though_its_memory_has() -> None:
    clock = VirtualClock()
    memory = HandMeter([rail("dram", frozenset(Unit), RailRole.MEMORY)], clock)
    ledger = EnergyLedger(CombinedMeter([memory, AbsentMeter({Unit.ANE: "no such rail"}, clock)], clock))
    account, bill = ledger.account("m", 1, Unit.ANE), Bill()
    account.begin_batch(0, [(1, bill)])
    clock.advance(100 * MS)
    memory.feed("dram", 2.0)
    ledger.sample()
    ledger.check()
    assert account.joules == {}
    assert account.why_unavailable() == "no such rail"
    assert await report_of([bill]) == {"kind": "unavailable", "reason": "no such rail"}


async def test_a_rail_that_vanishes_costs_no_joules_and_its_requests_say_so() -> None:
    world = World()
    account, bill, later = world.ledger.account("m", 1, Unit.CPU), Bill(), Bill()
    work = account.begin_batch(0, [(1, bill)])
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    world.meter.lose("cpu", "the file is gone")
    world.clock.advance(100 * MS)
    world.sample()
    work.ended_ns = world.clock.now_ns()
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(1.0)}
    assert await report_of([bill]) == {"kind": "unavailable", "reason": "the file is gone"}
    assert world.totals("cpu").watts is None
    world.meter.find("cpu")
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    # Nobody knows what it used between the last reading with it and the first one.
    assert world.totals("cpu").metered == pytest.approx(1.0)
    account.begin_batch(world.clock.now_ns(), [(1, later)]).ended_ns = world.clock.now_ns() + 100 * MS
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    assert (await report_of([later]))["joules"] == pytest.approx(1.0)


async def test_an_estimate_charges_the_time_of_works_only() -> None:
    world = World(rail("ane-estimate", frozenset({Unit.ANE}), kind=ESTIMATED, is_load_only=True))
    account, bill = world.ledger.account("m", 1, Unit.ANE), Bill()
    account.begin_batch(0, [(1, bill)]).ended_ns = 25 * MS
    world.clock.advance(100 * MS)
    world.sample(**{"ane-estimate": 0.5})
    assert account.joules == {(Phase.INFER, ESTIMATED): pytest.approx(0.125)}
    totals = world.totals("ane-estimate")
    assert (totals.metered, totals.idle) == pytest.approx((0.125, 0.0))
    assert await report_of([bill]) == {"kind": "estimated", "joules": pytest.approx(0.125)}


def test_a_unit_is_estimated_only_where_it_is_not_measured() -> None:
    ane = frozenset({Unit.ANE})
    world = World(rail("ane", ane), rail("ane-estimate", ane, kind=ESTIMATED, is_load_only=True))
    account = world.ledger.account("m", 1, Unit.ANE)
    account.begin(0)
    world.clock.advance(100 * MS)
    world.sample(**{"ane": 1.0, "ane-estimate": 7.0})
    assert account.joules == {(Phase.INFER, MEASURED): pytest.approx(1.0)}
    world.meter.lose("ane", "gone")
    world.clock.advance(100 * MS)
    world.sample(**{"ane-estimate": 7.0})
    assert account.joules[Phase.INFER, ESTIMATED] == pytest.approx(7.0)
    assert account.why_unavailable() == ""


def test_an_account_that_nobody_has_any_more_is_forgotten() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    account.quick_ns = 5 * MS
    del account
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    assert world.totals("cpu").idle == pytest.approx(1.0)


async def test_a_request_that_no_unit_computed_has_no_joules_rather_than_none() -> None:
    assert (await report_of([Bill()]))["kind"] == "unavailable"


async def test_a_bill_settles_by_a_reading() -> None:
    world = World()
    account, bill = world.ledger.account("m", 1, Unit.CPU), Bill()
    account.begin_batch(0, [(1, bill)]).ended_ns = 10 * MS
    world.clock.advance(10 * MS)
    world.meter.feed("cpu", 1.0)
    assert await report_of([bill]) == {"kind": "measured", "joules": pytest.approx(1.0)}


def test_the_parts_of_an_interval_without_works_are_idle() -> None:
    assert divide(0, 100, [], {}).idle == 1.0


def test_too_many_quick_batches_fill_the_interval() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    division = divide(0, 100, [], {account: 250})
    assert division.idle == 0.0
    assert [part for _, part in division.quick] == pytest.approx([1.0])


def test_the_joules_of_a_work_are_told_once_all_of_it_is_charged() -> None:
    world = World()
    account = world.ledger.account("m", 1, Unit.CPU)
    work = account.begin(0)
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    assert work.joules is None
    world.clock.advance(90 * MS)
    work.ended_ns = world.clock.now_ns()
    world.clock.advance(10 * MS)
    world.sample(cpu=2.0)
    assert work.joules == pytest.approx(1.0 + 2.0 * 0.9)


def test_the_joules_of_a_work_in_an_idle_time_are_not_told() -> None:
    """A meter counts what the unit draws while nothing computes, too, which is much less."""
    world = World()
    work = world.ledger.account("m", 1, Unit.CPU).begin(0)
    world.clock.advance(70 * MS)
    work.ended_ns = world.clock.now_ns()
    world.clock.advance(30 * MS)
    world.sample(cpu=1.0)
    assert work.joules is None


def test_estimates_and_parts_that_no_meter_counted_are_no_joules_of_a_work() -> None:
    world = World(rail("cpu", kind=ESTIMATED))
    work = world.ledger.account("m", 1, Unit.CPU).begin(0)
    world.clock.advance(100 * MS)
    work.ended_ns = world.clock.now_ns()
    world.sample(cpu=1.0)
    assert work.joules is None
    world = World()
    work = world.ledger.account("m", 1, Unit.CPU).begin(0)
    world.clock.advance(100 * MS)
    world.sample(cpu=1.0)
    world.meter.lose("cpu", "gone")
    world.clock.advance(100 * MS)
    work.ended_ns = world.clock.now_ns()
    world.sample()
    assert work.joules is None
