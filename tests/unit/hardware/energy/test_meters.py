"""What each meter reads, beside what all of them promise (tests/contract/hardware)."""

import os
from pathlib import Path

import pytest

from support.energy_meters import FakeNvml, FakeZeus, Zones
from triune.core.clock import VirtualClock
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.energy.chip_powers import chip_powers
from triune.hardware.energy.detect import apple_meter, import_installed, linux_meter
from triune.hardware.energy.estimate import LoadPower
from triune.hardware.energy.ioreport import IOReportMeter
from triune.hardware.energy.meter import CumulativeCounter, RailRole
from triune.hardware.energy.nvml import NvmlMeter
from triune.hardware.energy.rapl import RaplMeter

CLOCK = VirtualClock()


def test_rapl_reads_packages_cores_and_memory_once_each(tmp_path: Path) -> None:
    zones = Zones(tmp_path)
    for folder, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:1:0", "dram"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        zones.add(folder, name)
    rails = {rail.name: rail.role for rail in RaplMeter(CLOCK, tmp_path).rails}
    assert rails == {
        "package-0": RailRole.COMPUTE,
        "core-0": RailRole.DETAIL,
        "dram-0": RailRole.MEMORY,
        "package-1": RailRole.COMPUTE,
        "dram-1": RailRole.MEMORY,
        "psys": RailRole.DETAIL,
    }


def test_rapl_counts_across_the_end_of_its_range(tmp_path: Path) -> None:
    file = Zones(tmp_path).add("intel-rapl:0", "package-0", uj=999_990, range_uj=999_999)
    meter = RaplMeter(CLOCK, tmp_path)
    meter.read()
    file.write_text("10\n")
    assert meter.read().joules["package-0"] == pytest.approx(20e-6)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_rapl_without_permission_tells_the_remedy(tmp_path: Path) -> None:
    Zones(tmp_path).add("intel-rapl:0", "package-0").chmod(0)
    reason = RaplMeter(CLOCK, tmp_path).read().unavailable["package-0"]
    assert "sudo chmod a+r" in reason


def test_rapl_without_permission_as_the_kernel_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Zones(tmp_path).add("intel-rapl:0", "package-0")
    meter = RaplMeter(CLOCK, tmp_path)

    def refuse(self: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    reason = meter.read().unavailable["package-0"]
    assert f"sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj" in reason


@pytest.mark.parametrize("text", ["", "none\n", "1.5\n"])
def test_rapl_takes_no_strange_text_for_a_number(tmp_path: Path, text: str) -> None:
    file = Zones(tmp_path).add("intel-rapl:0", "package-0")
    meter = RaplMeter(CLOCK, tmp_path)
    file.write_text(text)
    reading = meter.read()
    assert reading.joules == {}
    assert "whole number" in reading.unavailable["package-0"]


def test_rapl_leaves_out_a_zone_without_its_range(tmp_path: Path) -> None:
    Zones(tmp_path).add("intel-rapl:0", "package-0")
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    assert RaplMeter(CLOCK, tmp_path).rails == ()


def test_rapl_without_power_zones_has_no_rails(tmp_path: Path) -> None:
    assert RaplMeter(CLOCK, tmp_path / "missing").rails == ()


@pytest.mark.parametrize(
    ("visible", "handle"), [(None, "gpu 0"), ("2,0", "gpu 2"), ("GPU-1234, GPU-5", "GPU-1234"), (" 1 ", "gpu 1")]
)
def test_nvml_counts_the_gpu_that_cuda_shows(visible: str | None, handle: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    (rail,) = NvmlMeter(FakeNvml(), CLOCK, environment).rails
    assert f"({handle})" in rail.source


@pytest.mark.parametrize(("visible", "word"), [("MIG-12", "MIG"), ("", "shows no GPU"), ("-1", "shows no GPU")])
def test_nvml_tells_why_a_process_has_no_counter(visible: str, word: str) -> None:
    meter = NvmlMeter(FakeNvml(), CLOCK, {"CUDA_VISIBLE_DEVICES": visible})
    assert word in meter.read().unavailable["gpu-0"]


def test_nvml_without_a_driver_is_unavailable() -> None:
    library = FakeNvml(failure="Driver Not Loaded")
    meter = NvmlMeter(library, CLOCK, {})
    assert "Driver Not Loaded" in meter.read().unavailable["gpu-0"]
    meter.close()
    assert library.num_open == 0


def test_nvml_closes_what_it_opened_even_if_it_has_no_gpu() -> None:
    library = FakeNvml()
    meter = NvmlMeter(library, CLOCK, {"CUDA_VISIBLE_DEVICES": ""})
    meter.close()
    assert library.num_open == 0


def test_nvml_integrates_power_where_there_is_no_counter() -> None:
    clock, library = VirtualClock(), FakeNvml(millijoules=None, milliwatts=100_000)
    meter = NvmlMeter(library, clock, {})
    assert "power" in meter.rails[0].source
    meter.read()
    clock.advance(500_000_000)
    library.milliwatts = 300_000
    assert meter.read().joules["gpu-0"] == pytest.approx(100.0)


def test_ioreport_says_unavailable_for_what_the_chip_does_not_tell() -> None:
    meter = IOReportMeter(FakeZeus(cpu_total_mj=1, gpu_mj=2, dram_mj=3), CLOCK, "Apple M4")
    reading = meter.read()
    assert set(reading.joules) == {"cpu", "gpu", "dram"}
    assert set(reading.unavailable) == {"ane", "gpu-sram"}


def test_ioreport_does_not_pass_one_die_off_as_two() -> None:
    meter = IOReportMeter(FakeZeus(cpu_total_mj=1, gpu_mj=2, ane_mj=3, dram_mj=4), CLOCK, "Apple M2 Ultra")
    reading = meter.read()
    assert set(reading.joules) == {"ane", "dram"}
    assert "two dies" in reading.unavailable["cpu"]


def test_ioreport_that_cannot_subscribe_is_unavailable() -> None:
    library = FakeZeus()
    library.failure = RuntimeError("Failed to create IOReport subscription.")
    reading = IOReportMeter(library, CLOCK, "Apple M4").read()
    assert "Failed to create" in reading.unavailable["cpu"]


def test_ioreport_with_a_unit_of_energy_that_the_library_does_not_know_is_unavailable() -> None:
    library = FakeZeus(cpu_total_mj=1)
    meter = IOReportMeter(library, CLOCK, "Apple M9")
    library.failure = ValueError("Unsupported or invalid energy unit provided: fJ")
    assert "fJ" in meter.read().unavailable["cpu"]


def test_a_counter_that_restarts_adds_nothing_unknown() -> None:
    counter = CumulativeCounter(1e-3)
    assert [counter.read(value) for value in (5_000, 7_000, 100, 1_100)] == pytest.approx([0, 2, 2, 3])


def _status(unit: Unit, presence: Presence = Presence.PRESENT) -> UnitStatus:
    return UnitStatus(unit, presence)


def test_linux_says_what_to_install_for_the_gpu() -> None:
    units = [_status(Unit.CPU), _status(Unit.GPU), _status(Unit.ANE, Presence.EMULATED)]
    meter = linux_meter(units, CLOCK, lambda name: None)
    reasons = meter.read().unavailable
    assert "pip install 'triune[energy]'" in reasons["gpu-unmetered"]
    assert "ane-unmetered" not in reasons


def test_linux_reads_the_gpu_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = linux_meter([_status(Unit.CPU), _status(Unit.GPU)], CLOCK, {"pynvml": FakeNvml()}.get)
    assert "gpu-0" in meter.read().joules


def test_a_mac_without_the_library_says_what_to_install_and_estimates_what_has_a_figure() -> None:
    units = [_status(unit) for unit in Unit]
    powers = [LoadPower("ane", frozenset({Unit.ANE}), 5.0, "someone measured it")]
    meter = apple_meter(units, "Apple M2", CLOCK, powers, lambda name: None)
    reading = meter.read()
    assert set(reading.joules) == {"ane-estimate"}
    assert "zeus-apple-silicon" in reading.unavailable["gpu-unmetered"]


def test_a_mac_with_the_library_reads_its_rails() -> None:
    units = [_status(unit) for unit in Unit]
    library = FakeZeus(cpu_total_mj=1, gpu_mj=2)
    meter = apple_meter(units, "Apple M4", CLOCK, [], {"zeus_apple_silicon": library}.get)
    reading = meter.read()
    assert set(reading.joules) == {"cpu", "gpu"}
    assert "ane" in reading.unavailable


def test_a_module_that_is_not_installed_is_none() -> None:
    assert import_installed("a_module_that_nobody_installs") is None
    assert import_installed("json") is not None


def test_the_table_of_chips_gives_watts_with_their_sources() -> None:
    powers = {power.name: power for power in chip_powers("Apple M1")}
    assert powers["cpu"].units == {Unit.CPU, Unit.AMX}
    assert powers["ane"].watts > 0
    assert "measured" in powers["ane"].source
    assert "claimed" in powers["cpu"].source


def test_a_chip_that_the_table_does_not_have_has_no_watts() -> None:
    assert list(chip_powers("Apple M99 Ultra")) == []
    assert list(chip_powers("Intel(R) Xeon(R)")) == []
