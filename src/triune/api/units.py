"""`triune.units`: the units of this machine, with what was measured of them."""

from collections.abc import Sequence

from triune.hardware.facts import UnitFacts
from triune.runtimes.described import known_units


def units() -> Sequence[UnitFacts]:
    """Returns every compute unit: whether this machine has it, its properties, and why it is absent if it is."""
    return known_units()
