"""Divides an interval of time among the works that a unit computed in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triune.core.energy import Account, Work


@dataclass(frozen=True, slots=True)
class Division:
    """How an interval is divided among works. All parts, including `idle`, add up to 1.

    Attributes:
        works: the fraction of each work.
        quick: the fraction of each account's quick batches (`Account.quick_ns`).
        idle: the fraction of the time in which nothing ran.
    """

    works: Sequence[tuple[Work, float]]
    quick: Sequence[tuple[Account, float]]
    idle: float


def divide(begin_ns: int, end_ns: int, works: Sequence[Work], quick_ns: Mapping[Account, int]) -> Division:
    """Divide an interval among works. At each moment, the works that run at that moment have equal parts.

    Quick batches, which run on the event loop, are recorded by their total time only. They count as spread over the
    interval: if they took n of its N ns, they count at each moment as n / N of a running work.

    Args:
        begin_ns: the time at which the interval begins.
        end_ns: the time at which it ends, later than `begin_ns`.
        works: the works that may have run in the interval.
        quick_ns: the total time of each account's quick batches in the interval, in ns.
    """
    whole_ns = end_ns - begin_ns
    density = {account: min(1.0, spent / whole_ns) for account, spent in quick_ns.items() if spent > 0}
    total = sum(density.values())
    # The quick batches of several workers may overlap. If their times add up to more than the interval, scale them
    # down.
    if total > 1:
        density = {account: each / total for account, each in density.items()}
        total = 1.0
    changes: list[tuple[int, bool, Work]] = []
    for work in works:
        first, last = max(work.started_ns, begin_ns), min(work.ended_ns or end_ns, end_ns)
        if first < last:
            changes += ((first, True, work), (last, False, work))
    changes.sort(key=lambda change: change[0])
    parts: dict[Work, float] = {}
    running: dict[Work, None] = {}
    quick = idle = 0.0
    at_ns = begin_ns
    for when_ns, begins, work in [*changes, (end_ns, False, None)]:
        length, at_ns = (when_ns - at_ns) / whole_ns, when_ns
        if length:
            weight = len(running) + total
            one = length / max(1.0, weight)
            for each in running:
                parts[each] = parts.get(each, 0.0) + one
            quick += one
            idle += max(0.0, length - one * weight)
        if work is not None:
            if begins:
                running[work] = None
            else:
                del running[work]
    return Division(list(parts.items()), [(account, quick * each) for account, each in density.items()], idle)
