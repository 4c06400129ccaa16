"""The accountant's thread: it samples by itself, and for those who wait."""

import asyncio
import threading

import pytest

from support.energy_meters import rail
from triune.core.clock import MonotonicClock
from triune.core.energy import Bill, Phase, report_of
from triune.core.units import Unit
from triune.hardware.energy import accountant as module
from triune.hardware.energy.accountant import EnergyAccountant
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.meter import CLOSED, Reading

CLOCK = MonotonicClock()


class Heater(HandMeter):
    """Uses 10 W all the time."""

    def __init__(self, resolution_seconds: float = 0.0) -> None:
        super().__init__([rail("cpu")], CLOCK, resolution_seconds)
        self.began_ns = CLOCK.now_ns()

    def read(self) -> Reading:
        reading = super().read()
        joules = (reading.time_ns - self.began_ns) / 1e8
        return Reading(reading.time_ns, {"cpu": joules} if reading.joules else {}, reading.unavailable)


async def test_a_bill_is_complete_once_it_is_settled() -> None:
    accountant = EnergyAccountant(Heater(), interval_seconds=60.0)
    try:
        account, bill = accountant.ledger.account("m", 1, Unit.CPU), Bill()
        began_ns = CLOCK.now_ns()
        work = account.begin_batch(began_ns, [(1, bill)])
        await asyncio.sleep(0.02)
        work.ended_ns = CLOCK.now_ns()
        joules = (work.ended_ns - began_ns) / 1e8
        assert await report_of([bill]) == {"kind": "measured", "joules": pytest.approx(joules)}
        assert account.joules[Phase.INFER, next(iter(bill.joules))[1]] == pytest.approx(joules)
    finally:
        accountant.close()


async def test_it_samples_without_being_asked() -> None:
    accountant = EnergyAccountant(Heater(), interval_seconds=0.01)
    try:
        account = accountant.ledger.account("m", 1, Unit.CPU)
        account.begin(CLOCK.now_ns())
        while not account.joules:
            await asyncio.sleep(0.01)
    finally:
        accountant.close()


async def test_many_that_wait_are_told_by_one_reading() -> None:
    meter = Heater(resolution_seconds=0.05)
    accountant = EnergyAccountant(meter, interval_seconds=60.0)
    num_readings = 0
    read = meter.read

    def counted() -> Reading:
        nonlocal num_readings
        num_readings += 1
        return read()

    meter.read = counted  # type: ignore[method-assign]
    try:
        assert all(await asyncio.gather(*(accountant.settle() for _ in range(50))))
        assert num_readings == 1
    finally:
        accountant.close()


async def test_a_meter_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.05)
    meter, go_on = Heater(), threading.Event()
    accountant = EnergyAccountant(meter, interval_seconds=60.0)
    read = meter.read
    meter.read = lambda: (go_on.wait(), read())[1]  # type: ignore[method-assign]
    account, bill = accountant.ledger.account("m", 1, Unit.CPU), Bill()
    account.begin_batch(CLOCK.now_ns(), [(1, bill)]).ended_ns = CLOCK.now_ns()
    assert await report_of([bill]) == {"kind": "unavailable", "reason": "the energy meter does not answer"}
    accountant.close()
    go_on.set()


async def test_a_defect_in_a_reading_loses_that_reading_only(caplog: pytest.LogCaptureFixture) -> None:
    meter = Heater()
    accountant = EnergyAccountant(meter, interval_seconds=60.0)
    read = meter.read

    def broken() -> Reading:
        meter.read = read  # type: ignore[method-assign]
        raise RuntimeError("a defect")

    meter.read = broken  # type: ignore[method-assign]
    try:
        assert await accountant.settle()
        assert "a defect" in caplog.text
        account = accountant.ledger.account("m", 1, Unit.CPU)
        account.begin(CLOCK.now_ns())
        await asyncio.sleep(0.01)
        assert await accountant.settle()
        assert account.joules
    finally:
        accountant.close()


async def test_once_closed_it_reads_no_more() -> None:
    meter = Heater()
    accountant = EnergyAccountant(meter)
    accountant.close()
    accountant.close()
    assert not await accountant.settle()
    assert meter.read().unavailable == {"cpu": CLOSED}
