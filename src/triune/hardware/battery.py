"""Reads the battery's state by psutil."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import psutil


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery.

    Attributes:
        percent: how full it is, from 0 to 100.
        is_discharging: whether the machine runs on it. False where the system does not tell.
    """

    percent: float
    is_discharging: bool


def read_battery(sensors_battery: Callable[[], Any] | None = None) -> Battery | None:
    """The machine's battery; None if it has none, or the system does not tell.

    Args:
        sensors_battery: psutil's function of that name; None takes psutil's, which some systems lack.
    """
    read = sensors_battery or cast("Callable[[], Any] | None", getattr(psutil, "sensors_battery", None))
    if read is None:
        return None
    try:
        found = read()
    except (OSError, RuntimeError, ValueError):
        # Files of a battery that is taken out vanish while they are read.
        return None
    if found is None:
        return None
    return Battery(min(100.0, max(0.0, float(found.percent))), found.power_plugged is False)
