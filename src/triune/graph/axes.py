"""Convert negative axes to non-negative ones."""

from triune.core.errors import InvalidArgumentError


def positive(axis: int, rank: int) -> int:
    """The non-negative form of `axis`: axis -1 of a tensor of rank 3 is axis 2."""
    return axis + rank if axis < 0 else axis


def existing_axis(axis: int, rank: int, name: str = "axis") -> int:
    """The non-negative form of `axis`.

    Raises InvalidArgumentError, with the parameter's `name`, if it is out of range.
    """
    if not -rank <= axis < rank:
        raise InvalidArgumentError(f"the parameter '{name}' is {axis}, but there are {rank} dimensions")
    return positive(axis, rank)
