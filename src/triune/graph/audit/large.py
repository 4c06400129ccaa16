"""Inputs whose floats can be made larger step by step, to find from what size on a program in fp16 is wrong."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from triune.graph.audit.inputs import Array, Input, InputSet, Kind, drawn


@dataclass(frozen=True, slots=True)
class SizedInputs:
    """Values for the inputs of a program, some of which can be multiplied by a size.

    Attributes:
        kind: the kind of values, for instance "positive numbers".
        arrays: the values, by the name of the input; those in `sized` are at most 1 in magnitude.
        sized: the names of the inputs that are multiplied. Masks, divisors and lengths are not.
    """

    kind: str
    arrays: Mapping[str, Array]
    sized: frozenset[str]

    def of(self, size: float) -> InputSet:
        """The inputs with numbers up to `size`."""
        # Suppress numpy's warning that numbers beyond 65504 become infinite in an input of fp16.
        with np.errstate(over="ignore"):
            larger = {name: (self.arrays[name] * size).astype(self.arrays[name].dtype) for name in self.sized}
        return InputSet(f"{self.kind} up to {size:g}", {**self.arrays, **larger})


def sized_inputs(inputs: Sequence[Input], without: Collection[str] = (), *, seed: int = 0) -> list[SizedInputs]:
    """Create inputs whose floats can be made larger: of both signs, and positive ones, whose sums grow faster.

    Args:
        inputs: the inputs of the program.
        without: inputs whose values stay as they are, since they have a range of their own, as images have.
        seed: the seed of the random values.

    Returns:
        two sets; none if no float can be made larger.
    """
    sized = frozenset(each.name for each in inputs if _can_grow(each)) - frozenset(without)
    if not sized:
        return []
    return [SizedInputs(each.name, each.arrays, sized) for each in drawn(_KINDS, inputs, seed)]


def _can_grow(each: Input) -> bool:
    uses = each.uses
    return each.dtype.kind not in "biu" and uses.kept is None and not uses.is_divisor and not uses.is_length


def _both_signs(rng: Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(-1, 1, shape))


def _positive(rng: Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.uniform(0.5, 1, shape))


def _whole(rng: Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 4, shape).astype(np.float64)


_KINDS: Mapping[str, Kind] = {
    "numbers": (_both_signs, _whole, False),
    "positive numbers": (_positive, _whole, False),
}
