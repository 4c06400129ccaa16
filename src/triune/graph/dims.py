"""Arithmetic of sizes, of which some are known as numbers and others only by name."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TypeAlias

Dim: TypeAlias = int | str | None
"""A size as a number, the name of an unknown size, or None if nothing is known."""
Dims: TypeAlias = tuple[Dim, ...]


def _equal(a: Dim, b: Dim) -> Dim:
    """The result of Equal of two sizes: 1, 0, or None if it is not known. A named size equals no negative number."""
    if a is not None and a == b:
        return 1
    known = [each for each in (a, b) if isinstance(each, int)]
    is_unlike = len(known) == 2 or (None not in (a, b) and any(each < 0 for each in known))
    return 0 if is_unlike else None


def _chosen(condition: Dim, yes: Dim, no: Dim) -> Dim:
    """The result of Where of two sizes."""
    return {1: yes, 0: no}.get(condition, yes if yes == no else None) if isinstance(condition, int) else None


def _times(a: Dim, b: Dim) -> Dim:
    """The product of two sizes; None if one is not known, or is no size but a negative number."""
    return product([a, b]) if is_size((a,)) and is_size((b,)) else None


def _difference(a: Dim, b: Dim) -> Dim:
    """The difference of two sizes; None if it is not known. It may be negative."""
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return 0 if a is not None and a == b else None


def _quotient(a: Dim, b: Dim) -> Dim:
    """The quotient of two sizes; None if one is not known, or the division has a remainder or may have one."""
    return remaining_size([a], [b]) if is_size((a,)) and is_size((b,)) else None


OF_SIZES: Mapping[str, Callable[..., Dim]] = {
    "Equal": _equal,
    "Where": _chosen,
    "Mul": _times,
    "Div": _quotient,
    "Sub": _difference,
}
"""Operators of which the elements of the result are computed from those of the operands, one by one."""


def is_size(elements: Dims | None) -> bool:
    """Whether the elements of a tensor are one size, which is not negative."""
    return (
        elements is not None
        and len(elements) == 1
        and (isinstance(elements[0], str) or (elements[0] is not None and elements[0] >= 0))
    )


def broadcast(shapes: Sequence[Dims | None]) -> Dims | None:
    """The shape to which `shapes` broadcast; None if the rank of one is not known."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    rank = max(len(shape) for shape in known)
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(_broadcast_size({shape[axis] for shape in padded}) for axis in range(rank))


def _broadcast_size(dims: set[Dim]) -> Dim:
    """The size to which `dims` broadcast; None if it is not known."""
    larger = dims - {1}
    fixed = [dim for dim in larger if isinstance(dim, int)]
    if fixed:
        return fixed[0]
    return next(iter(larger)) if len(larger) == 1 else (1 if not larger else None)


def remaining_size(given: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """The size that -1 means in a Reshape: the number of elements of `given`, divided by the product of `others`."""
    if None in given or None in others or 0 in others:
        return None
    names, size = _factors(given)
    taken, divisor = _factors(others)
    if size % divisor or taken - names:
        return None
    left = sorted((names - taken).elements())
    factor = size // divisor
    if not left:
        return factor
    return "*".join(left if factor == 1 else [*left, str(factor)])


def product(dims: Sequence[Dim]) -> Dim:
    """The product of sizes: a number, or a name such as "a*b*2"; None if one is not known."""
    return remaining_size(dims, [])


def _factors(dims: Sequence[Dim]) -> tuple[Counter[str], int]:
    parts = [part for dim in dims if isinstance(dim, str) for part in dim.split("*")]
    fixed = prod(dim for dim in dims if isinstance(dim, int))
    return Counter(part for part in parts if not part.isdecimal()), fixed * prod(
        int(part) for part in parts if part.isdecimal()
    )
