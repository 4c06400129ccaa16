"""Reads the battery's state by psutil."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import psutil


@dataclass(frozen=True, slots=True)
class Battery:
    """The state of the machine's battery.

    Attributes:
        percent: how full it is, from 0 to 100.
        is_discharging: whether the machine runs on battery power. False if the system does not report this.
    """

    percent: float
    is_discharging: bool


def read_battery(sensors_battery: Callable[[], Any] | None = None) -> Battery | None:
    """Read the machine's battery. None if it has no battery, or if the system does not report one.

    Args:
        sensors_battery: the function to call instead of `psutil.sensors_battery`; None takes psutil's, which some
            systems lack.
    """
    read = sensors_battery or cast("Callable[[], Any] | None", getattr(psutil, "sensors_battery", None))
    if read is None:
        return None
    try:
        found = read()
    except (OSError, RuntimeError, ValueError):
        # Report no battery: it may have been removed during the call, so that its files vanish while psutil reads them.
        return None
    if found is None:
        return None
    return Battery(min(100.0, max(0.0, float(found.percent))), found.power_plugged is False)
