"""Sensors of temperature on Linux: thermal zones, and hwmon.

Sources: the kernel's `driver-api/thermal/sysfs-api.html` and `hwmon/sysfs-interface.html`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from triune.core.units import Unit
from triune.hardware.heat.readings import Heat, Sensor

THERMAL: Final = Path("/sys/class/thermal")
HWMON: Final = Path("/sys/class/hwmon")

_CPU: Final = frozenset({Unit.CPU, Unit.AMX})
_CPU_ZONES: Final = frozenset({"x86_pkg_temp", "cpu-thermal", "cpu_thermal"})
_CPU_CHIPS: Final = {"coretemp": "Package id", "k10temp": "Tctl", "zenpower": "Tdie"}
"""hwmon's drivers of CPUs, each with the beginning of the label of the sensor for the whole package. Their other
sensors measure single cores.
"""

_TRIPS: Final = frozenset({"passive", "hot", "critical"})
"""Kinds of trip points at which the kernel slows the hardware or stops it; `active` starts fans."""


def read_linux_heat(thermal: Path = THERMAL, hwmon: Path = HWMON) -> Heat:
    """Read the kernel's temperature sensors. Sensors that cannot be read are left out.

    Args:
        thermal: the folder of thermal zones.
        hwmon: the folder of hwmon's devices.
    """
    return Heat((*_zones(thermal), *_chips(hwmon)))


def _zones(root: Path) -> Iterator[Sensor]:
    for zone in sorted(root.glob("thermal_zone*")):
        celsius, kind = _celsius(zone / "temp"), _text(zone / "type")
        if celsius is None or not kind:
            continue
        trips = [
            _celsius(path.with_name(path.name.replace("_type", "_temp")))
            for path in sorted(zone.glob("trip_point_*_type"))
            if _text(path) in _TRIPS
        ]
        # Leave out trip points of 0 or below, which a thermal zone without a limit has.
        limits = [each for each in trips if each is not None and each > 0]
        yield Sensor(kind, celsius, min(limits, default=None), _CPU if kind in _CPU_ZONES else frozenset())


def _chips(root: Path) -> Iterator[Sensor]:
    for chip in sorted(root.glob("hwmon*")):
        name = _text(chip / "name")
        for path in sorted(chip.glob("temp*_input")):
            celsius, stem = _celsius(path), path.name.removesuffix("_input")
            if celsius is None:
                continue
            label = _text(chip / f"{stem}_label")
            limit = _celsius(chip / f"{stem}_crit") or _celsius(chip / f"{stem}_max")
            package = _CPU_CHIPS.get(name)
            is_cpu = package is not None and label.startswith(package)
            shown = " ".join(filter(None, (name, label or stem)))
            yield Sensor(shown, celsius, limit if limit and limit > 0 else None, _CPU if is_cpu else frozenset())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _celsius(path: Path) -> float | None:
    """Read a file with a temperature in thousandths of a degree. None if it does not exist, or does not contain an
    integer.
    """
    text = _text(path)
    return int(text) / 1000 if re.fullmatch(r"-?\d{1,9}", text) else None
