"""Inputs that reveal faults of compiler passes: several sets of values for the inputs of a program.

Random noise does not show most faults. These show only with quotients that are integers, negative fractions (which
floor and truncation round differently), values that overflow between two operations, infinities, or extreme integers.
Each set has one kind of these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from triune.graph.audit.uses import Uses

Array: TypeAlias = NDArray[Any]
Fill: TypeAlias = Callable[[Generator, tuple[int, ...]], Array]
"""A function that draws an array of fp64 values, of a given shape."""

Kind: TypeAlias = tuple[Fill, Fill, bool]
"""How floats are drawn, how integers are drawn, and whether the values are extreme (`InputSet.is_extreme`)."""

_LARGEST_EXPONENT: Final = 80.0
"""If an input has a number larger than this, exp and products of several inputs may overflow in fp32
(`InputSet.may_overflow`).
"""

_SIZES: Final = (3, 1, 2, 5)
"""The sizes of free dimensions in successive sets, each clipped to the dimension's limits."""


@dataclass(frozen=True, slots=True)
class Free:
    """A dimension whose size is not fixed.

    Attributes:
        name: the name of the size; dimensions of one name have equal sizes.
        low: the smallest size.
        high: the largest size; None if there is no limit.
    """

    name: str
    low: int = 1
    high: int | None = None

    def size(self, wanted: int) -> int:
        """The size within the limits that is nearest to `wanted`."""
        return max(self.low, wanted if self.high is None else min(wanted, self.high))


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a program.

    Attributes:
        name: the input's name.
        dtype: the element type.
        shapes: the shapes that the input may have: one, or several if the user enumerated them.
        num_indexed: for integers that are indices, the size of the dimension that they index; values are then in [0,
            size).
        numbers: constants of the program; their multiples are tried, because quotients by the constants are then
            integers.
        ends: extreme values worth trying. For integers: the limits of a Clip, and the indices of the largest and
            smallest elements of a table. For floats that are cast to INT64: numbers beyond int32.
        centers: numbers near which a constant nearly cancels what the program computes from the input. They broadcast
            to the input; with any other shape, it is not known which elements they belong to.
        uses: what the program uses the input for (a mask, a divisor, a length), if only some values are valid for it.
    """

    name: str
    dtype: np.dtype[Any]
    shapes: tuple[tuple[int | Free, ...], ...]
    num_indexed: int | None = None
    numbers: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    uses: Uses = field(default_factory=Uses)
    centers: tuple[Array, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class InputSet:
    """Values for all the inputs of a program.

    Attributes:
        name: the kind of values, for instance "noise".
        arrays: the values, by the name of the input.
        is_extreme: whether values are so large or small that a correct rewriting of a sum or product may overflow
            although the original does not.
        is_narrow: whether the values are so close to each other, to 0 or to another number that terms cancel, so that
            outputs may be small beside those for other inputs; they are judged by their own size.
    """

    name: str
    arrays: Mapping[str, Array]
    is_extreme: bool = False
    is_narrow: bool = False

    @property
    def largest(self) -> float:
        """The largest absolute value among the finite floats; 1 if there are none or all are 0."""
        floats = [each.astype(np.float64) for each in self.arrays.values() if each.dtype.kind not in "biu"]
        found = [float(np.max(np.abs(each), where=np.isfinite(each), initial=0.0)) for each in floats]
        return max(found, default=0.0) or 1.0

    @property
    def may_overflow(self) -> bool:
        """Whether the floats are finite, and so large or small that numbers within a program may overflow where its
        result, computed in another order, does not.
        """
        floats = [each.astype(np.float64) for each in self.arrays.values() if each.dtype.kind not in "biu"]
        are_finite = all(bool(np.isfinite(each).all()) for each in floats)
        return are_finite and (self.is_extreme or self.largest > _LARGEST_EXPONENT)


def revealing_inputs(inputs: Sequence[Input], *, seed: int = 0, extremes: bool = True) -> list[InputSet]:
    """Create sets of inputs, plain ones first. The same arguments give the same sets.

    The first set has the first enumerated shape, or size 3 in free dimensions. The other sets have other shapes and
    sizes.

    Args:
        inputs: the inputs of the program.
        seed: the seed of the random values.
        extremes: whether to create the extreme sets too.
    """
    return drawn({name: kind for name, kind in _KINDS.items() if extremes or not kind[2]}, inputs, seed)


def drawn(kinds: Mapping[str, Kind], inputs: Sequence[Input], seed: int = 0) -> list[InputSet]:
    """Create a set of inputs of each kind, as `revealing_inputs` does.

    Args:
        kinds: for each name of a set, how its values are drawn.
        inputs: the inputs of the program.
        seed: the seed of the random values.
    """
    sets: list[InputSet] = []
    for name, (floats, integers, is_extreme) in kinds.items():
        number = list(_KINDS).index(name) if name in _KINDS else len(_KINDS) + len(sets)
        rng = np.random.default_rng([seed, number])
        size = _SIZES[number % len(_SIZES)]
        arrays: dict[str, Array] = {}
        for each in inputs:
            shape = tuple(
                dim.size(size) if isinstance(dim, Free) else dim for dim in each.shapes[number % len(each.shapes)]
            )
            if name == _MULTIPLES and each.numbers:
                floats = integers = _multiples(each.numbers)
            is_at_ends = name == _ENDS and (each.dtype.kind in "iu" or bool(each.ends))
            values = _at_ends(each, shape, rng) if is_at_ends else _values(each, shape, rng, floats, integers)
            arrays[each.name] = values if is_extreme else _usable(each, values, rng)
        steps = min(
            (
                dim.size(size)
                for each in inputs
                for dim in each.shapes[number % len(each.shapes)]
                if isinstance(dim, Free)
            ),
            default=1,
        )
        for each in inputs:
            if each.uses.is_length:
                arrays[each.name] = np.clip(arrays[each.name], 1, steps)
        sets.append(InputSet(name, arrays, is_extreme))
    return sets


def _usable(each: Input, values: Array, rng: Generator) -> Array:
    """The values of an input, changed so that they are valid as a mask or a divisor if the program uses the input
    so.
    """
    kept = each.uses.kept
    if kept is not None:
        mask = _among(1 - kept, kept, kept)(rng, values.shape)
        if mask.ndim:
            # At least one element stays unmasked: if all are masked, correct runtimes may give different results.
            mask[..., :1] = kept
        return mask.astype(values.dtype)
    if each.uses.is_divisor:
        return np.where(values == 0, np.ones_like(values), values)
    return values


def _values(each: Input, shape: tuple[int, ...], rng: Generator, floats: Fill, integers: Fill) -> Array:
    if each.dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    if each.num_indexed is not None:
        return np.asarray(rng.integers(0, max(each.num_indexed, 1), shape)).astype(each.dtype)
    if each.dtype.kind in "iu":
        limits = np.iinfo(each.dtype)
        return np.asarray(np.clip(integers(rng, shape), float(limits.min), float(limits.max))).astype(each.dtype)
    with np.errstate(over="ignore", under="ignore"):
        # Clip values beyond the type's largest number, which would become infinite: only the extreme sets may have
        # infinities. For shape (), numpy's generators return a scalar, not an array.
        values = np.array(floats(rng, shape))
        # `Any`, since the type annotations of numpy and ml_dtypes are incomplete.
        limits_of: Any = ml_dtypes.finfo
        largest = float(limits_of(each.dtype).max)
        finite = np.isfinite(values)
        values[finite] = np.clip(values[finite], -largest, largest)
        return values.astype(each.dtype)


def _at_ends(each: Input, shape: tuple[int, ...], rng: Generator) -> Array:
    """Draw values from the extreme values of an input (`Input.ends`); for integers of few bits, also from the smallest
    and the largest number of their type.
    """
    if each.dtype.kind == "f":
        return _among(*each.ends)(rng, shape).astype(each.dtype)
    limits = np.iinfo(each.dtype)
    ends = list(each.ends)
    if each.num_indexed is not None:
        ends = [end for end in ends if 0 <= end < each.num_indexed] + [0, max(each.num_indexed, 1) - 1]
    elif limits.bits <= _FEW_BITS:
        ends += [int(limits.min), int(limits.max)]
    return _among(*(ends or range(4)))(rng, shape).clip(limits.min, limits.max).astype(each.dtype)


def _noise(scale: float) -> Fill:
    return lambda rng, shape: rng.standard_normal(shape) * scale


def _near(value: float) -> Fill:
    """Draw numbers near `value`, so that terms cancel: differences are small, and Sigmoid and Tanh are near their
    limits.
    """
    return lambda rng, shape: value + rng.standard_normal(shape) * 0.1


def _whole(low: int, high: int) -> Fill:
    return lambda rng, shape: rng.integers(low, high, shape).astype(np.float64)


def _uniform(low: float, high: float) -> Fill:
    return lambda rng, shape: rng.uniform(low, high, shape)


def _among(*values: float) -> Fill:
    """Draw elements from `values`. Each value occurs if there are enough elements."""

    def fill(rng: Generator, shape: tuple[int, ...]) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        return rng.permutation(np.resize(np.array(values), count)).reshape(shape)

    return fill


def _multiples(numbers: Sequence[float]) -> Fill:
    return lambda rng, shape: rng.choice(numbers, shape) * rng.integers(-8, 65, shape)


def _ties(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw halves, which rounding modes round differently, and negative fractions, for which floor and truncation
    differ.
    """
    return rng.integers(-9, 9, shape) + rng.choice([0.5, 0.5, 0.3, 0.7], shape)


def _with_infinities(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw noise with some infinities and NaN."""
    values = rng.standard_normal(shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([np.inf, -np.inf, np.nan], shape), values)


_MULTIPLES: Final = "multiples"
_ENDS: Final = "ends"

_FEW_BITS: Final = 16
"""Integers of at most this many bits are drawn from the whole range of the type, since sums and products must be
right for all of its numbers.
"""

_INT32_ENDS: Final = (-(2.0**31), 2.0**31 - 1, -(2.0**31) + 1, 2.0**24 + 1, -1.0, 0.0, 65_536.0, 46_341.0)

_KINDS: Final[Mapping[str, Kind]] = {
    "noise": (_noise(1.0), _whole(0, 4), False),
    "whole numbers": (_whole(1, 400), _whole(1, 400), False),
    "negative whole numbers": (_whole(-60, 60), _whole(-60, 60), False),
    "ties": (_ties, _whole(-9, 9), False),
    _MULTIPLES: (_multiples((3, 7, 10, 41, 49)), _multiples((2, 3, 7, 10)), False),
    "fractions": (_uniform(0.01, 1.0), _whole(0, 2), False),
    "masks": (_among(0.0, 1.0, 1.0), _among(0.0, 1.0, 1.0), False),
    "zeros": (_among(0.0), _among(0.0), False),
    "signed zeros": (_among(-0.0, 0.0, 1.0), _among(0.0, 1.0, -1.0), False),
    "large": (_noise(1e4), _whole(-40_000, 40_000), False),
    "tiny": (_noise(1e-6), _among(0.0, 1.0, 2.0), False),
    _ENDS: (_noise(1.0), _whole(0, 4), False),
    "infinities": (_with_infinities, _whole(-3, 4), True),
    "huge": (_noise(1e38), _among(*_INT32_ENDS), True),
    "next to nothing": (_noise(1e-37), _among(*_INT32_ENDS), True),
    "nearly equal numbers": (_near(3.0), _whole(0, 4), False),
}
