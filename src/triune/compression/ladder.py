"""Finds how many layers must return to a higher precision, and in which order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_T = TypeVar("_T", bound="Tried")


class Tried(Protocol):
    """The result of compressing a model after a number of steps (`Step`), each of which makes a layer more precise."""

    @property
    def holds(self) -> bool:
        """Whether the requested accuracy holds."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step towards precise layers: a layer returns to a higher precision.

    Attributes:
        layer: the layer's name.
        rung: the index of its new form among the forms that it may have (`Plan.rungs`), the smallest one first.
    """

    layer: str
    rung: int


def steps_of(noise: Mapping[str, Sequence[float]]) -> list[Step]:
    """The order in which layers return to a higher precision. Each step takes the layer that adds the most noise, and
    moves it to the next larger form in which it adds less noise.

    Args:
        noise: for each layer the noise that it adds in each of its forms, the smallest form first.
    """
    rungs = dict.fromkeys(noise, 0)
    steps: list[Step] = []
    places = {name: place for place, name in enumerate(noise)}
    while True:
        left = [
            (noise[name][rung], -places[name], name, next_rung)
            for name, rung in rungs.items()
            if (next_rung := _quieter(noise[name], rung)) is not None
        ]
        if not left:
            return steps
        *_, name, rung = max(left)
        rungs[name] = rung
        steps.append(Step(name, rung))


def rungs_after(steps: Sequence[Step]) -> dict[str, int]:
    """For each layer that some steps return to a higher precision, `Step.rung` of the last of these steps."""
    return {step.layer: step.rung for step in steps}


def fewest(most: int, attempt: Callable[[int], _T]) -> _T:
    """Find the fewest steps for which the accuracy holds, by doubling and then bisection, and return their result. If
    it holds for none of the tried numbers, return the result of all steps.

    Args:
        most: the number of steps there are, 1 or more.
        attempt: compresses after a number of steps.
    """
    too_few, count = 0, min(1, most)
    found = attempt(count)
    while not found.holds and count < most:
        too_few, count = count, min(2 * count, most)
        found = attempt(count)
    if not found.holds:
        return found
    while count - too_few > 1:
        middle = (too_few + count) // 2
        tried = attempt(middle)
        if tried.holds:
            found, count = tried, middle
        else:
            too_few = middle
    return found


def _quieter(noise: Sequence[float], rung: int) -> int | None:
    """The index of the next form after `rung` that adds less noise than form `rung`; None if there is none."""
    return next((each for each in range(rung + 1, len(noise)) if noise[each] < noise[rung]), None)
