"""Chooses which models to unload to make room for another one. These functions only decide; they unload nothing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loaded model that may be unloaded.

    Attributes:
        name: the model's name.
        num_bytes: the memory that its versions are charged with, in bytes.
        is_idle: whether the model has no waiting or running request, and none is expected soon.
        used: when the model was used last, as numbers to compare: larger means later.
        is_settled: whether the model has been loaded long enough to be worth the time of its load.
    """

    name: str
    num_bytes: int
    is_idle: bool
    used: tuple[int, ...]
    is_settled: bool = True


def choose(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[str]:
    """The idle models to unload so that `lacking_bytes` become free, the least recently used first.

    No model is unloaded needlessly: from the most recently used chosen model on, each is dropped from the choice if the
    others free enough without it.

    Returns:
        the names; empty if all idle models together do not free enough.
    """
    idle = [each for each in candidates if each.is_idle and each.is_settled]
    found = _enough(sorted(idle, key=lambda each: each.used), lacking_bytes)
    return [each.name for each in found]


def choose_busy(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[str]:
    """The models to unload, idle and busy ones, if unloading all idle models does not free enough. The chosen models
    finish their requests and are unloaded one after the other.

    Idle models are chosen before busy ones; of the idle models, and likewise of the busy ones, the least recently used
    is chosen first. As in `choose`, no model is unloaded needlessly.

    Returns:
        the names in the order of unloading, the largest model first; empty if all models together do not free enough.
    """
    settled = [each for each in candidates if each.is_settled]
    found = _enough(sorted(settled, key=lambda each: (not each.is_idle, each.used)), lacking_bytes)
    return [each.name for each in sorted(found, key=lambda each: -each.num_bytes)]


def _enough(candidates: Sequence[Candidate], lacking_bytes: int) -> Sequence[Candidate]:
    """The first candidates that together free `lacking_bytes`, without those that are not needed for that; empty if all
    candidates together free too little.
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
