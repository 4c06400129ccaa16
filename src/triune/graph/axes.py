"""Axes counted from the front."""

from triune.core.errors import InvalidArgumentError


def positive(axis: int, rank: int) -> int:
    """An axis of `rank` dimensions, which may be counted from behind, counted from the front."""
    return axis + rank if axis < 0 else axis


def existing_axis(axis: int, rank: int, name: str = "axis") -> int:
    """As `positive`, of an axis that may be wrong. Raises InvalidArgumentError if there is no such axis."""
    if not -rank <= axis < rank:
        raise InvalidArgumentError(f"the parameter '{name}' is {axis}, but there are {rank} dimensions")
    return positive(axis, rank)
