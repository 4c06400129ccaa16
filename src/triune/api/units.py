"""`triune.units`: what this machine has, and what was measured of it."""

from collections.abc import Sequence

from triune.hardware.facts import UnitFacts
from triune.runtimes.described import known_units


def units() -> Sequence[UnitFacts]:
    """Every compute unit: whether this machine has it, what it is and can do, and why it is absent."""
    return known_units()
