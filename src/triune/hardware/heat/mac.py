"""Thermal pressure on macOS: NSProcessInfo where pyobjc is installed, and `pmset -g therm`."""

import importlib
import importlib.util
import re
import subprocess
from typing import Any, Final

from triune.hardware.heat.readings import Heat

PMSET: Final = ("/usr/bin/pmset", "-g", "therm")

_SECONDS: Final = 5

_STATES: Final = {2: "serious", 3: "critical"}
"""The values of NSProcessInfoThermalState at which the machine counts as too hot; 0 is nominal, 1 is fair. Source:
Apple's documentation of NSProcessInfo.
"""


def read_mac_heat() -> Heat:
    """Read the heat of this Mac. Without root, macOS does not report temperatures, nor which part of the chip is
    hot.
    """
    return mac_heat(_pmset(), _thermal_state())


def mac_heat(pmset: str, state: int | None) -> Heat:
    """The thermal pressure that macOS reports, as `Heat`.

    Args:
        pmset: the output of `pmset -g therm`. It has only notes if there was no warning since the system started; else
            the level of the warning, and on some Macs how much the CPUs are slowed down.
        state: NSProcessInfo's `thermalState`; None if it cannot be read.
    """
    if state in _STATES:
        return Heat(pressure=f"macOS' thermal state is {_STATES[state]}")
    values = {
        name: int(number) for name, number in re.findall(r"^\s*(\w[\w ]*?)\s*=\s*(\d{1,6})\s*$", pmset, re.MULTILINE)
    }
    if level := values.get("Thermal Warning Level", 0):
        return Heat(pressure=f"macOS' thermal warning level is {level}")
    if (limit := values.get("CPU_Speed_Limit", 100)) < 100:
        return Heat(pressure=f"macOS limits the CPU's speed to {limit}%")
    return Heat()


def _pmset() -> str:
    try:
        run = subprocess.run(PMSET, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout


def _thermal_state() -> int | None:
    if importlib.util.find_spec("Foundation") is None:
        return None
    foundation: Any = importlib.import_module("Foundation")
    return int(foundation.NSProcessInfo.processInfo().thermalState())
