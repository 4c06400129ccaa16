"""What every EnergyMeter promises."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.energy_meters import FakeNvml, FakeZeus, Zones, rail
from triune.core.clock import VirtualClock
from triune.core.energy import EnergyKind
from triune.core.units import Unit
from triune.hardware.energy.combined import AbsentMeter, CombinedMeter
from triune.hardware.energy.estimate import EstimatedMeter, LoadPower
from triune.hardware.energy.hand import HandMeter
from triune.hardware.energy.ioreport import IOReportMeter
from triune.hardware.energy.meter import EnergyMeter, RailRole
from triune.hardware.energy.nvml import NvmlMeter
from triune.hardware.energy.rapl import RaplMeter

SECOND_NS = 1_000_000_000


@dataclass
class Subject:
    """A meter over something that the test controls.

    Attributes:
        meter: the meter.
        clock: its clock.
        rail: a rail that is available.
        spend: has something use that many joules on the rail, over one second; None if nothing tells the meter.
        lose: makes the rail fail; None if it cannot.
        find: undoes `lose`.
    """

    meter: EnergyMeter
    clock: VirtualClock
    rail: str
    spend: Callable[[int], None] | None = None
    lose: Callable[[], object] | None = None
    find: Callable[[], object] | None = None


def _hand(tmp_path: Path) -> Subject:
    clock = VirtualClock()
    meter = HandMeter([rail("hand")], clock)
    return Subject(
        meter,
        clock,
        "hand",
        lambda joules: (meter.feed("hand", joules), clock.advance(SECOND_NS))[1],
        lambda: meter.lose("hand", "it was taken away"),
        lambda: meter.find("hand"),
    )


def _rapl(tmp_path: Path) -> Subject:
    clock, zones = VirtualClock(), Zones(tmp_path / "powercap")
    file = zones.add("intel-rapl:0", "package-0", uj=Zones.RANGE_UJ - 1_000_000)
    zones.add("intel-rapl:0:0", "dram")
    hidden = file.with_name("hidden")

    def spend(joules: int) -> None:
        # The counter wraps around in the first test already.
        path = file if file.exists() else hidden
        path.write_text(f"{(int(path.read_text()) + joules * 1_000_000) % (Zones.RANGE_UJ + 1)}\n")
        clock.advance(SECOND_NS)

    meter = RaplMeter(clock, zones.root)
    return Subject(meter, clock, "package-0", spend, lambda: file.rename(hidden), lambda: hidden.rename(file))


def _nvml(tmp_path: Path) -> Subject:
    clock, library = VirtualClock(), FakeNvml()

    def spend(joules: int) -> None:
        assert library.millijoules is not None
        library.millijoules += joules * 1000
        clock.advance(SECOND_NS)

    return _nvml_subject(clock, library, spend)


def _nvml_power(tmp_path: Path) -> Subject:
    clock, library = VirtualClock(), FakeNvml(millijoules=None)
    meter_read: list[Callable[[], object]] = []

    def spend(joules: int) -> None:
        # The mean of the power at both ends of the second.
        library.milliwatts = joules * 1000
        meter_read[0]()
        clock.advance(SECOND_NS)

    subject = _nvml_subject(clock, library, spend)
    meter_read.append(subject.meter.read)
    return subject


def _nvml_subject(clock: VirtualClock, library: FakeNvml, spend: Callable[[int], None]) -> Subject:
    meter = NvmlMeter(library, clock, {})
    return Subject(
        meter,
        clock,
        "gpu-0",
        spend,
        lambda: setattr(library, "failure", "GPU is lost"),
        lambda: setattr(library, "failure", ""),
    )


def _ioreport(tmp_path: Path) -> Subject:
    clock, library = VirtualClock(), FakeZeus(cpu_total_mj=7_000, gpu_mj=3_000)

    def spend(joules: int) -> None:
        library.metrics.cpu_total_mj = (library.metrics.cpu_total_mj or 0) + joules * 1000
        clock.advance(SECOND_NS)

    meter = IOReportMeter(library, clock, "Apple M4 Pro")
    return Subject(
        meter,
        clock,
        "cpu",
        spend,
        lambda: setattr(library, "failure", RuntimeError("the subscription ended")),
        lambda: setattr(library, "failure", None),
    )


def _estimate(tmp_path: Path) -> Subject:
    clock = VirtualClock()
    meter = EstimatedMeter([LoadPower("ane", frozenset({Unit.ANE}), 5.0, "someone measured it")], clock)
    return Subject(meter, clock, "ane-estimate")


def _combined(tmp_path: Path) -> Subject:
    subject = _hand(tmp_path)
    other = HandMeter([rail("other", frozenset({Unit.GPU}))], subject.clock)
    subject.meter = CombinedMeter([other, subject.meter, AbsentMeter({Unit.ANE: "none"}, subject.clock)], subject.clock)
    return subject


_MAKERS = (_hand, _rapl, _nvml, _nvml_power, _ioreport, _estimate, _combined)


@pytest.fixture(params=_MAKERS, ids=lambda make: make.__name__)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    made: Subject = request.param(tmp_path)
    return made


def test_each_rail_is_read_or_says_why_not(subject: Subject) -> None:
    names = [each.name for each in subject.meter.rails]
    reading = subject.meter.read()
    assert len(set(names)) == len(names)
    assert set(reading.joules) | set(reading.unavailable) == set(names)
    assert not set(reading.joules) & set(reading.unavailable)
    assert all(reading.unavailable.values())
    assert subject.rail in reading.joules
    for each in subject.meter.rails:
        assert each.units
        assert each.source
        assert each.is_load_only == (each.kind is EnergyKind.ESTIMATED)


def test_joules_grow_by_what_was_used(subject: Subject) -> None:
    if subject.spend is None:
        pytest.skip("it counts time alone")
    first = subject.meter.read()
    subject.spend(3)
    second = subject.meter.read()
    subject.spend(4)
    third = subject.meter.read()
    name = subject.rail
    assert second.time_ns - first.time_ns == SECOND_NS
    assert second.joules[name] - first.joules[name] == pytest.approx(3)
    assert third.joules[name] - second.joules[name] == pytest.approx(4)


def test_readings_without_use_are_equal(subject: Subject) -> None:
    first, second = subject.meter.read(), subject.meter.read()
    assert first == second


def test_a_rail_that_vanishes_is_unavailable_and_what_it_used_meanwhile_is_not_counted(subject: Subject) -> None:
    if subject.lose is None or subject.find is None or subject.spend is None:
        pytest.skip("it cannot be lost")
    name = subject.rail
    before = subject.meter.read()
    subject.lose()
    lost = subject.meter.read()
    assert name not in lost.joules
    assert lost.unavailable[name]
    subject.spend(5)
    subject.find()
    found = subject.meter.read()
    assert found.joules[name] == pytest.approx(before.joules[name])
    subject.spend(2)
    assert subject.meter.read().joules[name] - found.joules[name] == pytest.approx(2)


def test_a_closed_meter_has_no_rail_available(subject: Subject) -> None:
    subject.meter.close()
    subject.meter.close()
    reading = subject.meter.read()
    assert reading.joules == {}
    assert set(reading.unavailable) == {each.name for each in subject.meter.rails}


def test_the_resolution_is_short(subject: Subject) -> None:
    assert 0 <= subject.meter.resolution_seconds <= 0.2


def test_a_unit_has_a_rail_that_is_the_unit_itself(subject: Subject) -> None:
    (found,) = [each for each in subject.meter.rails if each.name == subject.rail]
    assert found.role is RailRole.COMPUTE
