"""Chooses which models to unload for room. It only decides, from figures, and changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loaded model that may be unloaded.

    Attributes:
        name: the model.
        num_bytes: what its versions are charged with.
        is_idle: whether no request waits or runs, and none is about to come.
        used: when it was used last; any numbers that compare, the larger the later.
        is_settled: whether it has been loaded for some time, so that its load was not in vain.
    """

    name: str
    num_bytes: int
    is_idle: bool
    used: tuple[int, ...]
    is_settled: bool = True


def choose(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[str]:
    """The idle models to unload so that `lacking_bytes` become free, the least recently used first.

    No model is unloaded needlessly: a chosen model is kept if the others free enough without it, checked from the most
    recently used.

    Returns:
        the names; empty if all idle models together do not free enough.
    """
    idle = [each for each in candidates if each.is_idle and each.is_settled]
    found = _enough(sorted(idle, key=lambda each: each.used), lacking_bytes)
    return [each.name for each in found]


def choose_busy(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[str]:
    """The models to unload when no idle ones suffice: they finish their requests, one after the other.

    Idle ones come before busy ones, then the least recently used. None is unloaded in vain, as by `choose`.

    Returns:
        the names, in order: the largest come first, since who goes first waits longest; empty if all together do not
        suffice.
    """
    settled = [each for each in candidates if each.is_settled]
    found = _enough(sorted(settled, key=lambda each: (not each.is_idle, each.used)), lacking_bytes)
    return [each.name for each in sorted(found, key=lambda each: -each.num_bytes)]


def _enough(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[Candidate]:
    """The first candidates that together free enough, without those that turn out not to be needed; empty if all free
    too little.
    """
    chosen: list[Candidate] = []
    left = lacking_bytes
    for each in candidates:
        if left <= 0:
            break
        chosen.append(each)
        left -= each.num_bytes
    if left > 0:
        return ()
    for each in reversed(chosen[:-1]):
        if left + each.num_bytes <= 0:
            chosen.remove(each)
            left += each.num_bytes
    return chosen
