"""Parses the units that a caller names."""

from collections.abc import Sequence

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit


def named_units(names: Sequence[str]) -> list[Unit]:
    """The units with these names. Raises InvalidArgumentError if there are no names, or if a unit is unknown."""
    known = {unit.value: unit for unit in Unit}
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        problem = f"there is no unit {wrong[0]!r}" if wrong else "no unit is named"
        raise InvalidArgumentError(f"{problem}; choose one of {', '.join(known)}")
    return [known[name] for name in names]
