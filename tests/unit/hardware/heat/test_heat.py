"""Heat: recorded texts of systems."""

import json
from pathlib import Path

import pytest

from triune.core.units import Unit
from triune.hardware.heat.linux import read_linux_heat
from triune.hardware.heat.mac import mac_heat
from triune.hardware.heat.nvidia import nvidia_slowing, parse_slowing
from triune.hardware.heat.readings import Heat, Sensor

CPU = frozenset({Unit.CPU, Unit.AMX})

# Printed by `pmset -g therm` on Apple silicon that was never too hot since its start, and in the form of Macs that tell
# how far CPUs are slowed. The names are those of pmset's source.
COOL = """\
Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""
LIMITS = """\
Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
2026-08-20 05:08:37 -0700 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 12
\tCPU_Speed_Limit \t= {}
"""


def folder(root: Path, **files: str) -> None:
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize(
    "text", ["", COOL, LIMITS.format(100), "Thermal Warning Level = 0\n", "Error: no\n", "= 3\n\x00"]
)
def test_a_mac_that_is_cool_or_says_nothing(text: str) -> None:
    assert mac_heat(text, None) == Heat()
    assert mac_heat(text, 0) == Heat()
    assert mac_heat(text, 1) == Heat()


@pytest.mark.parametrize(
    ("text", "state", "word"),
    [
        (COOL, 2, "thermal state is serious"),
        ("", 3, "thermal state is critical"),
        ("Thermal Warning Level = 2\n", None, "warning level is 2"),
        (LIMITS.format(72), None, "limits the CPU's speed to 72%"),
    ],
)
def test_a_mac_that_is_too_hot(text: str, state: int | None, word: str) -> None:
    assert word in mac_heat(text, state).pressure


def test_linux_zones(tmp_path: Path) -> None:
    thermal = tmp_path / "thermal"
    folder(
        thermal / "thermal_zone0",
        type="x86_pkg_temp",
        temp="91000",
        trip_point_0_type="passive",
        trip_point_0_temp="95000",
        trip_point_1_type="critical",
        trip_point_1_temp="105000",
    )
    folder(
        thermal / "thermal_zone1", type="acpitz", temp="27800", trip_point_0_type="active", trip_point_0_temp="50000"
    )
    folder(thermal / "thermal_zone2", type="iwlwifi_1")
    folder(thermal / "thermal_zone3", type="broken", temp="hot")
    folder(
        thermal / "thermal_zone4", type="x86_pkg_temp", temp="40000", trip_point_0_type="passive", trip_point_0_temp="0"
    )
    folder(thermal / "cooling_device0", type="Processor")
    assert read_linux_heat(thermal, tmp_path / "missing").sensors == (
        Sensor("x86_pkg_temp", 91.0, 95.0, CPU),
        Sensor("acpitz", 27.8, None),
        Sensor("x86_pkg_temp", 40.0, None, CPU),
    )


def test_linux_hwmon(tmp_path: Path) -> None:
    hwmon = tmp_path / "hwmon"
    folder(
        hwmon / "hwmon0",
        name="coretemp",
        temp1_input="88000",
        temp1_label="Package id 0",
        temp1_max="86000",
        temp1_crit="100000",
        temp2_input="87000",
        temp2_label="Core 0",
        temp2_crit="100000",
    )
    folder(hwmon / "hwmon1", name="nvme", temp1_input="35850", temp1_label="Composite", temp1_max="81850")
    folder(hwmon / "hwmon2", name="k10temp", temp1_input="61500", temp1_label="Tctl")
    folder(hwmon / "hwmon3", name="acpi_fan", fan1_input="2000")
    assert read_linux_heat(tmp_path / "missing", hwmon).sensors == (
        Sensor("coretemp Package id 0", 88.0, 100.0, CPU),
        Sensor("coretemp Core 0", 87.0, 100.0),
        Sensor("nvme Composite", 35.85, 81.85),
        Sensor("k10temp Tctl", 61.5, None, CPU),
    )


def test_a_machine_without_sensors_says_nothing(tmp_path: Path) -> None:
    assert read_linux_heat(tmp_path, tmp_path) == Heat()


def nvml_text(reasons: object, celsius: object = 92) -> str:
    # Reconstructed, in the form of what `nvidia_slowing` writes.
    return json.dumps({"name": "NVIDIA H200", "clocks_event_reasons": reasons, "celsius": celsius})


@pytest.mark.parametrize("reasons", [0, 0x1, 0x4, 0x8, 0x2 | 0x100, True, None, "0x40"])
def test_a_gpu_that_is_idle_or_at_its_limit_of_power_is_not_hot(reasons: object) -> None:
    assert parse_slowing(nvml_text(reasons)) == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", "not JSON", "[" * 100_000])
def test_nvml_that_tells_nothing(text: str) -> None:
    assert parse_slowing(text) == ()


@pytest.mark.parametrize(
    ("reasons", "words"),
    [(0x20, ["its driver lowers the clocks"]), (0x4 | 0x8 | 0x60, ["its driver lowers", "the hardware halves"])],
)
def test_a_gpu_that_heat_has_slowed_is_left(reasons: int, words: list[str]) -> None:
    ((unit, reason),) = parse_slowing(nvml_text(reasons))
    assert unit is Unit.GPU
    assert reason.startswith("NVIDIA H200 at 92 C: ")
    assert all(word in reason for word in words)
    ((_, reason),) = parse_slowing(nvml_text(reasons, "hot"))
    assert reason.startswith("NVIDIA H200: ")


class FakeNvml:
    """The functions of `pynvml` that are used, of an old driver; `reasons` is what the GPU tells, None if nothing."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, reasons: int | None, *, starts: bool = True) -> None:
        self.reasons, self.starts, self.uses = reasons, starts, 0

    def nvmlInit(self) -> None:
        if not self.starts:
            raise self.NVMLError("Driver Not Loaded")
        self.uses += 1

    def nvmlShutdown(self) -> None:
        self.uses -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"GPU {handle}"

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 80 + handle + sensor

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        if self.reasons is None:
            raise self.NVMLError(f"Not Supported by {handle}")
        return self.reasons


def test_nvml_is_asked_for_the_gpu_of_this_process_and_given_back() -> None:
    nvml = FakeNvml(0x40)
    ((_, reason),) = parse_slowing(nvidia_slowing(nvml, {"CUDA_VISIBLE_DEVICES": "3,1"}))
    assert reason.startswith("GPU 3 at 83 C: the hardware halves the clocks")
    assert nvidia_slowing(nvml, {"CUDA_VISIBLE_DEVICES": "MIG-1"}) == ""
    assert nvml.uses == 0
    for silent in (FakeNvml(None), FakeNvml(0x40, starts=False)):
        assert nvidia_slowing(silent, {}) == ""
        assert silent.uses == 0
