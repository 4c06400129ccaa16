"""Which models are unloaded to make room. It only decides, from figures, and changes nothing."""

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

    None is unloaded in vain: of those that were chosen, one is kept, the most recently used first, if the others
    suffice without it.

    Returns:
        the names; empty if all idle models together do not suffice.
    """
    chosen: list[Candidate] = []
    left = lacking_bytes
    for each in sorted(candidates, key=lambda candidate: candidate.used):
        if left <= 0:
            break
        if each.is_idle and each.is_settled:
            chosen.append(each)
            left -= each.num_bytes
    if left > 0:
        return ()
    for each in reversed(chosen[:-1]):
        if left + each.num_bytes <= 0:
            chosen.remove(each)
            left += each.num_bytes
    return [each.name for each in chosen]


def first_to_drain(candidates: Sequence[Candidate], lacking_bytes: int) -> str | None:
    """The model that is to finish its requests and to be unloaded when no idle ones suffice: of those that suffice
    alone, if there are any, an idle one before a busy one, the least recently used first. None if no model is settled.
    """
    settled = [each for each in candidates if each.is_settled]
    enough = [each for each in settled if each.num_bytes >= lacking_bytes]
    ordered = sorted(enough or settled, key=lambda candidate: (not candidate.is_idle, candidate.used))
    return ordered[0].name if ordered else None
