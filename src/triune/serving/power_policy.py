"""Changes the power mode because of a low battery or heat."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from triune.core.power import Power
from triune.core.threads import in_thread
from triune.core.units import Unit
from triune.hardware.battery import Battery
from triune.hardware.heat.readings import Heat

INTERVAL_SECONDS: Final = 10.0
"""The time between two readings of battery and heat, in seconds."""

LOW_PERCENT: Final = 20.0
"""The power mode of a machine on battery becomes `low_power` below this charge, in percent."""

RECOVERED_PERCENT: Final = 25.0
"""`low_power` because of a low battery ends at this charge, in percent, or when the battery is being charged."""

HOT_KELVIN: Final = 3.0
"""A unit becomes too hot when one of its sensors is at most this many kelvins below its limit."""

COOL_KELVIN: Final = 10.0
"""A unit that is too hot remains so until the sensor is more than this many kelvins below its limit."""

_log = logging.getLogger(__name__)


class PowerPolicy:
    """Decides how the server reacts to battery and heat. Each reaction begins at one threshold and ends at another."""

    def __init__(self, power: Power) -> None:
        """`power` is the power mode to change."""
        self._power = power
        self._is_low = False
        self._hot: frozenset[str] = frozenset()

    def apply(self, battery: Battery | None, heat: Heat) -> None:
        """Set the power mode, and the units that are too hot, from what the sensors report now.

        Args:
            battery: the state of the battery; None for a machine without one.
            heat: the machine's heat.
        """
        before = self._power.mode, dict(self._power.hot)
        self._is_low = (
            battery is not None
            and battery.is_discharging
            and (battery.percent < (RECOVERED_PERCENT if self._is_low else LOW_PERCENT))
        )
        reason = f"the machine runs on battery, which is at {battery.percent:.0f}%" if battery and self._is_low else ""
        hot: dict[Unit, str] = {}
        names: set[str] = set()
        for sensor in heat.sensors:
            if sensor.limit_celsius is None or not sensor.units:
                continue
            margin = COOL_KELVIN if sensor.name in self._hot else HOT_KELVIN
            if sensor.celsius >= sensor.limit_celsius - margin:
                names.add(sensor.name)
                why = f"'{sensor.name}' is at {sensor.celsius:.0f} C, and its limit is {sensor.limit_celsius:.0f} C"
                hot |= dict.fromkeys(sensor.units, why)
        hot |= dict(heat.slowed)
        self._hot = frozenset(names)
        self._power.overrule(reason or heat.pressure, hot)
        if (self._power.mode, dict(self._power.hot)) != before:
            self._tell()

    def _tell(self) -> None:
        power = self._power
        units = "".join(f"; work leaves '{unit.value}': {reason}" for unit, reason in power.hot.items())
        _log.warning("power mode '%s'%s%s", power.mode.value, f": {power.reason}" if power.reason else "", units)


async def watch(
    policy: PowerPolicy,
    read_battery: Callable[[], Battery | None],
    read_heat: Callable[[], Heat],
    interval_seconds: float = INTERVAL_SECONDS,
) -> None:
    """Read battery and heat in a thread every `interval_seconds`, and apply the policy, until this is cancelled."""
    has_failed = False
    while True:
        try:
            battery, heat = await in_thread(lambda: (read_battery(), read_heat()))
            policy.apply(battery, heat)
        except Exception:  # noqa: BLE001 - a strange sensor must not end the server, nor fill its log
            if not has_failed:
                _log.exception("battery and heat could not be read; the power mode does not follow them")
            has_failed = True
        await asyncio.sleep(interval_seconds)
