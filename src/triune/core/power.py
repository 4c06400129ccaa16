"""Power modes: how a server trades speed for energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit

POWER_PARAMETER: Final = "triune_power_mode"
"""The request parameter, HTTP header (with hyphens) and gRPC metadata that name the mode for one request."""


class PowerMode(Enum):
    """A power mode. The value is its name in flags, requests and messages."""

    HIGH_PERFORMANCE = "high_performance"
    BALANCED = "balanced"
    LOW_POWER = "low_power"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class ModeEffects:
    """The effects of a power mode. `docs/energy.md` has the table of all modes.

    Attributes:
        is_one_unit: whether a model uses only the unit that needs the fewest joules; otherwise it uses the unit that is
            ready first.
        min_delay_us: the least time that the oldest request waits for others to join its batch. It applies to models
            that run on a worker's thread, not to those on the event loop's.
        step_share: the part of the engine's `step_tokens` that a step may have.
        is_overruled: whether a low battery or a hot unit changes what the server does in this mode.
    """

    is_one_unit: bool = False
    min_delay_us: int = 0
    step_share: float = 1.0
    is_overruled: bool = True


EFFECTS: Final[Mapping[PowerMode, ModeEffects]] = MappingProxyType(
    {
        PowerMode.HIGH_PERFORMANCE: ModeEffects(is_overruled=False),
        PowerMode.BALANCED: ModeEffects(),
        PowerMode.LOW_POWER: ModeEffects(is_one_unit=True, min_delay_us=5000, step_share=0.25),
    }
)
"""The effects of each mode."""

FRUGAL_ORDER: Final = (Unit.ANE, Unit.AMX, Unit.CPU, Unit.GPU)
"""The units by their watts under load, the least first, as measured on Apple's chips (see `hardware/chips.toml`). AMX
comes before the CPU: they share a power rail, and AMX computes products in less time. This order is used if a model's
own joules are not known on all of its units.
"""


def mode_of(name: object) -> PowerMode:
    """Return the power mode with this name.

    Raises:
        InvalidArgumentError: no power mode has this name.
    """
    for mode in PowerMode:
        if mode.value == name:
            return mode
    known = ", ".join(mode.value for mode in PowerMode)
    # Show no value that is not a string: it may be large, or nested deeper than Python can print.
    shown = repr(name[:64]) if isinstance(name, str) else f"of type {type(name).__name__}"
    raise InvalidArgumentError(f"there is no power mode {shown}; there are {known}")


class Power:
    """The power mode of a server. Only the event loop's thread may change it; any thread may read it.

    Attributes:
        asked: the requested mode.
        mode: the mode in effect, which differs if a policy overrules the request.
        reason: why another mode is in effect; "" if the requested mode is in effect.
        hot: units that are too hot, with the reason; they are not used if the model has other units.
    """

    def __init__(self, asked: PowerMode = PowerMode.BALANCED) -> None:
        self.asked = self.mode = asked
        self.reason = ""
        self.hot: Mapping[Unit, str] = MappingProxyType({})
        self._low_reason = ""
        self._seen_hot: Mapping[Unit, str] = MappingProxyType({})

    def ask(self, mode: PowerMode) -> None:
        """Change the requested mode."""
        self.asked = mode
        self._decide()

    def overrule(self, low_reason: str, hot: Mapping[Unit, str]) -> None:
        """Set the machine's reasons to overrule the power mode.

        Args:
            low_reason: why only `low_power` is to be used; empty for no reason.
            hot: units that are too hot, with the reason.
        """
        self._low_reason, self._seen_hot = low_reason, hot
        self._decide()

    def _decide(self) -> None:
        is_overruled = EFFECTS[self.asked].is_overruled
        is_low = bool(is_overruled and self._low_reason and self.asked is not PowerMode.LOW_POWER)
        self.mode = PowerMode.LOW_POWER if is_low else self.asked
        self.reason = self._low_reason if is_low else ""
        self.hot = self._seen_hot if is_overruled else MappingProxyType({})
