"""Inputs for which terms cancel, or numbers vanish, in few bits: close to 0, to 1, to each other, or to constants.

On ordinary inputs `1 - cos(x)` is of the size of 1. That it is 0 in fp16 shows only where x is about 0.01.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.random import Generator

from triune.graph.audit.inputs import Array, Fill, Input, InputSet, Kind, drawn

_MOST_NUMBERS = 4
"""The most constants of a model near which inputs are tried."""

_MOST_CENTERS = 3
"""The most centers of an input that are tried: numbers near which a sum that the model computes from the input is 0."""

_MOST_APART = 4
"""The most inputs of a model for which there are sets with one input much smaller or larger than the others."""

_FAR = 8.0

_PAIRS: Final = ((1.0, 1e-2), (1.0, 1e-3), (50.0, 1e-3), (1000.0, 1e-1))
"""For each set of nearly equal inputs: about which number they lie, and how far they are apart."""


_WIDTHS: Final = (1e-3, 1e-4)
"""The distances of inputs from the constants that are subtracted from them, relative to the constant's largest
element.
"""


def narrow_inputs(inputs: Sequence[Input], *, seed: int = 0) -> list[InputSet]:
    """Create sets of inputs in which floats are close to a number or to each other, the most telling ones first.

    Args:
        inputs: the inputs of the program; there are no sets if none of them is a float.
        seed: the seed of the random values.
    """
    floats = [each for each in inputs if each.dtype.kind not in "biu"]
    if not floats:
        return []
    sets = [
        *_pairs(floats, inputs, seed),
        *_near_centers(inputs, seed),
        *drawn(_KINDS, inputs, seed),
        *_apart(floats, inputs, seed),
    ]
    sets += drawn(_near_constants(floats[0].numbers), inputs, seed)
    return [replace(each, is_narrow=True) for each in sets]


def _near(center: float, width: float) -> Fill:
    return lambda rng, shape: center + width * rng.standard_normal(shape)


def _beside(center: float, width: float) -> Fill:
    """Draw numbers on one side of a center, at which the domain of a function such as acos ends."""
    return lambda rng, shape: center + width * (np.abs(rng.standard_normal(shape)) + 0.1)


def _rows(axis: int, center: float, width: float) -> Fill:
    """Draw numbers that are nearly equal along an axis."""

    def fill(rng: Generator, shape: tuple[int, ...]) -> Array:
        base = list(shape)
        if len(base) > axis >= -len(base):
            base[axis] = 1
        numbers = center * (1 + 0.5 * rng.standard_normal(base))
        return np.asarray(numbers + width * rng.standard_normal(shape))

    return fill


def _one_of_many(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw rows whose last number is near 1 and whose others are near 0, as unit quaternions of small rotations are."""
    values = 1e-2 * rng.standard_normal(shape)
    if values.ndim:
        values[..., -1] = 1 - 1e-4 * np.abs(values[..., -1])
    return np.asarray(values)


def _whole(rng: Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(0, 4, shape).astype(np.float64)


def _kinds(floats: Mapping[str, Fill]) -> dict[str, Kind]:
    return {name: (fill, _whole, False) for name, fill in floats.items()}


_KINDS: Final = _kinds(
    {
        "numbers near 0.01": _near(0, 1e-2),
        "numbers near 0.001": _near(0, 1e-3),
        "nearly equal numbers of a row": _rows(-1, 1.0, 1e-3),
        "numbers near 8": _near(8, 0.1),
        "numbers near -8": _near(-8, 0.1),
        "numbers just below 1": _beside(1, -1e-3),
        "numbers hardly below 1": _beside(1, -1e-4),
        "numbers just above 1": _beside(1, 1e-3),
        "nearly equal rows": _rows(0, 1.0, 1e-3),
        "nearly equal lines": _rows(1, 1.0, 1e-3),
        "numbers near 50": _near(50, 1e-2),
        "nearly equal numbers of a row near 50": _rows(-1, 50.0, 1e-3),
        "nearly equal rows near 50": _rows(0, 50.0, 1e-3),
        "rows near [0, 1]": _one_of_many,
        "numbers near 0.1": _near(0, 1e-1),
        "numbers near 1e-4": _near(0, 1e-4),
        "numbers near 1e-6": _near(0, 1e-6),
        "numbers just above -1": _beside(-1, 1e-3),
        "numbers just below -1": _beside(-1, -1e-3),
        "numbers near 0.5": _near(0.5, 1e-3),
        "numbers near 2": _near(2, 1e-2),
        "numbers near -2": _near(-2, 1e-2),
        "numbers near 4": _near(4, 1e-2),
        "numbers near -4": _near(-4, 1e-2),
        "numbers near 12": _beside(12, 1.0),
        "numbers near -12": _beside(-12, -1.0),
        "numbers near pi": _near(np.pi, 1e-2),
        "numbers near pi / 2": _near(np.pi / 2, 1e-2),
        "numbers near 10": _near(0, 10.0),
        "numbers near 100": _near(0, 100.0),
        "positive numbers near 100": _beside(100, 10.0),
        "numbers near 1000": _near(1000, 0.1),
        "negative numbers near 100": _beside(-100, -10.0),
    }
)


def _near_constants(numbers: Sequence[float]) -> dict[str, Kind]:
    """Kinds of inputs (`Kind`) with numbers a little above, a little below and far from each constant that a model
    reads.
    """
    fills: dict[str, Fill] = {}
    for number in numbers[:_MOST_NUMBERS]:
        for sign, word in ((1, ""), (-1, "-")):
            fills[f"numbers just above {word}{number:.6g}"] = _beside(sign * number, 1e-3 * number)
            fills[f"numbers just below {word}{number:.6g}"] = _beside(sign * number, -1e-3 * number)
            # For these inputs the quotient by the constant is large, so that functions such as Sigmoid are near their
            # limits.
            fills[f"numbers near {word}{_FAR * number:.6g}"] = _beside(sign * _FAR * number, sign * number)
    return _kinds(fills)


def _near_centers(inputs: Sequence[Input], seed: int) -> list[InputSet]:
    """Sets of inputs that are close to the numbers at which a constant cancels a sum computed from them."""
    sets: list[InputSet] = []
    for position in range(min(max((len(each.centers) for each in inputs), default=0), _MOST_CENTERS)):
        for number, width in enumerate(_WIDTHS):
            which = f" ({position + 1})" if position else ""
            name = f"numbers within {width:g} of what is subtracted from them{which}"
            (found,) = drawn(_kinds({name: _near(0, 1.0)}), inputs, seed)
            rng = np.random.default_rng([seed, number])
            arrays = dict(found.arrays)
            for each in inputs:
                # If an input has fewer centers (`Input.centers`) than another one, use its last center again.
                if each.centers:
                    base = _spread(each.centers[min(position, len(each.centers) - 1)], arrays[each.name].shape, rng)
                    noise = width * float(np.abs(base).max(initial=0.0)) * rng.standard_normal(base.shape)
                    arrays[each.name] = np.asarray(base + noise).astype(each.dtype)
            sets.append(replace(found, arrays=arrays))
    return sets


def _spread(center: Array, shape: tuple[int, ...], rng: Generator) -> Array:
    """Broadcast `center`, the numbers near which sums of an input cancel, to the input's shape. If it does not
    broadcast, choose each element from it at random.
    """
    try:
        return np.broadcast_to(center, shape)
    except ValueError:
        return np.asarray(rng.choice(center.reshape(-1), shape))


def _pairs(floats: Sequence[Input], inputs: Sequence[Input], seed: int) -> list[InputSet]:
    """Sets of inputs in which the float inputs of equal shape have nearly equal elements."""
    if len({(each.shapes, each.dtype) for each in floats}) == len(floats):
        return []
    sets: list[InputSet] = []
    for number, (size, width) in enumerate(_PAIRS):
        name = f"nearly equal inputs near {size:g}, {width:g} apart"
        (drawn_set,) = drawn(_kinds({name: _near(size, size / 2)}), inputs, seed)
        rng = np.random.default_rng([seed, number])
        first: dict[tuple[int, ...], Array] = {}
        arrays = dict(drawn_set.arrays)
        for each in floats:
            array = arrays[each.name]
            if array.shape in first:
                moved = first[array.shape] + width * rng.standard_normal(array.shape)
                arrays[each.name] = np.asarray(moved).astype(array.dtype)
            else:
                first[array.shape] = array.astype(np.float64)
        sets.append(replace(drawn_set, arrays=arrays))
    return sets


def _apart(floats: Sequence[Input], inputs: Sequence[Input], seed: int) -> list[InputSet]:
    """Sets of inputs in which one float input is small, or large, compared with the others."""
    if len(floats) < 2:
        return []
    sets: list[InputSet] = []
    for each in floats[:_MOST_APART]:
        for factor, word in ((1e-3, "small"), (30.0, "large")):
            (found,) = drawn(_kinds({f"numbers with a {word} '{each.name}'": _near(0, 1.0)}), inputs, seed)
            array = found.arrays[each.name]
            sets.append(replace(found, arrays={**found.arrays, each.name: (array * factor).astype(array.dtype)}))
    return sets
