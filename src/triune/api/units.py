"""`triune.units`: the units of this machine, with what was measured of them."""

from collections.abc import Sequence

from triune.hardware.facts import UnitFacts
from triune.runtimes.described import known_units


def units() -> Sequence[UnitFacts]:
    """Returns every compute unit: whether this machine has it, its properties, and the reason if it is absent."""
    return known_units()
