"""Heat: recorded texts of systems."""

from pathlib import Path

import pytest

from triune.core.units import Unit
from triune.hardware.heat.linux import read_linux_heat
from triune.hardware.heat.mac import mac_heat
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
