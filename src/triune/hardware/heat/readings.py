"""Readings of the machine's heat."""

from dataclasses import dataclass, field

from triune.core.units import Unit


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor of temperature.

    Attributes:
        name: the sensor's name, as a text for users.
        celsius: the temperature.
        limit_celsius: the temperature at which the hardware slows down or stops; None if unknown.
        units: the units whose temperature it is; empty for others, such as a disk.
    """

    name: str
    celsius: float
    limit_celsius: float | None = None
    units: frozenset[Unit] = frozenset()


@dataclass(frozen=True, slots=True)
class Heat:
    """The heat of the machine.

    Attributes:
        sensors: its temperature sensors; empty if none can be read.
        pressure: why the whole system is too hot, as a text; "" if it is not too hot, or if this is unknown.
        slowed: units that the hardware has slowed down because of heat, with the reason.
    """

    sensors: tuple[Sensor, ...] = ()
    pressure: str = ""
    slowed: tuple[tuple[Unit, str], ...] = field(default=())
