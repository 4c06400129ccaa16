"""Group neighbouring axes of a tensor, so that an operator needs fewer of them."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Sizes: TypeAlias = tuple[int | None, ...]
"""The sizes of a tensor's axes; None for an axis that is free: its size is known only at run time."""


def product(sizes: Sequence[int | None]) -> int | None:
    """The number of elements of axes of these sizes; None if one of them is free."""
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def parted(sizes: Sizes, axis: int) -> Sizes:
    """The sizes of three axes: all axes before `axis` joined, `axis` itself, and all axes after it joined."""
    return (product(sizes[:axis]), sizes[axis], product(sizes[axis + 1 :]))


def fewest(sizes: Sizes, most: int) -> Sizes:
    """Remove axes of size 1, and join neighbouring axes until at most `most` are left, of which at most one is free."""
    found = [size for size in sizes if size != 1] or [1]
    free = [place for place, size in enumerate(found) if size is None]
    if len(free) > 1:
        found[free[0] : free[-1] + 1] = [None]
    while len(found) > most:
        found[-2:] = [product(found[-2:])]
    return tuple(found)


def runs(marks: Sequence[object], sizes: Sizes) -> list[list[int]]:
    """Group neighbouring axes that have equal `marks`, of which there is one for each axis.

    Returns:
        the runs: lists of axes. Axes of size 1 are in no run.
    """
    found: list[list[int]] = []
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        if found and marks[found[-1][-1]] == marks[axis]:
            found[-1].append(axis)
        else:
            found.append([axis])
    return found


def permuted_runs(sizes: Sizes, perm: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Group the axes that a transposition keeps next to each other, in the same order.

    Returns:
        the runs, each a list of axes, in the order before the transposition; and the permutation with which the
        transposition arranges the runs. Axes of size 1 are in no run.
    """
    wanted: list[list[int]] = []
    kept = [axis for axis, size in enumerate(sizes) if size != 1]
    for axis in (each for each in perm if sizes[each] != 1):
        if wanted and kept.index(axis) == kept.index(wanted[-1][-1]) + 1:
            wanted[-1].append(axis)
        else:
            wanted.append([axis])
    groups = sorted(wanted)
    return groups, [groups.index(each) for each in wanted]


def of_runs(groups: Sequence[Sequence[int]], sizes: Sizes) -> Sizes:
    """The size of each run of axes."""
    return tuple(product([sizes[axis] for axis in group]) for group in groups)
