"""A value whose elements are each a function of one element of an input."""

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from triune.core.datatypes import Array

ROUNDING = 2.0**-11
"""The largest relative error of rounding a number to fp16."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Samples of a value as a function of an input element.

    Attributes:
        sources: the names of the inputs. The elements of all inputs are numbered together, in order.
        first: the number of the input's first element, if there is one input; None if unknown.
        numbers: FP64 [n], numbers that an element of an input may be, ascending.
        values: FP64 [n, *sizes], the value's elements for these numbers. `sizes` are those of the value, or 1 along
            axes along which all elements are the same function.
        errors: FP64 [n, *sizes], how far the elements may be off if the input, the constants and the result of each
            node are rounded to fp16.
        nodes: the nodes that compute the value, in order.
        layout: the name of the result of the last node that reorders elements, or of the input. In values of equal
            layouts, elements at the same place are functions of the same element of the input.
        places: INT64, of the value's shape: for each element, which of all inputs' elements it is computed from. None
            if the value has the input's layout, or this is not known.
        is_zero: BOOL [n, *sizes], whether a sum in the value changes its sign beside this number.
        crossed: FP64 [*sizes], the largest number for which the value itself, a sum, is 0; NaN if there is none. None
            if it is no sum.
        is_scaled: whether a node multiplies by a constant, or computes a function.
        is_sampled: whether a constant was read in part, so that the curve has only some of the value's elements.
    """

    sources: tuple[str, ...]
    first: int | None
    numbers: Array
    values: Array
    errors: Array
    nodes: tuple[NodeProto, ...]
    layout: str
    places: Array | None
    is_zero: Array
    crossed: Array | None = None
    is_scaled: bool = False
    is_sampled: bool = False

    @property
    def lost(self) -> float:
        """The precision that cancellation costs: the largest of `errors` where a sum is 0 (`is_zero`), minus eight fp16
        rounding errors of the value there. It is absolute, in the units of the value; 0 if there is no such error.
        """
        error = np.where(self.is_zero, self.errors - 8 * ROUNDING * np.abs(self.values), 0)
        return float(np.max(error, where=np.isfinite(error), initial=0.0))

    @property
    def is_in_place(self) -> bool:
        """Whether the value's elements are functions of one input's elements in the same places."""
        return self.layout in self.sources

    def brackets(self) -> list[tuple[float, float]]:
        """The pairs of neighbouring `numbers` between which at least one element of `values` changes its sign."""
        found = sign_changes(self.numbers, self.values).reshape(len(self.numbers) - 1, -1).any(axis=1)
        return [(float(self.numbers[each]), float(self.numbers[each + 1])) for each in np.flatnonzero(found)]


def curve_of_input(source: str, first: int | None, rank: int, numbers: Array, *, is_integer: bool) -> Curve:
    """The curve of an input of this rank: the input itself, rounded to fp16 unless it is an integer."""
    values = numbers.reshape(-1, *(1,) * rank)
    errors = np.zeros(values.shape) if is_integer else ROUNDING * np.abs(values)
    return Curve((source,), first, numbers, values, errors, (), source, None, np.zeros(values.shape, bool))


def sign_changes(numbers: Array, values: Array) -> Array:
    """For each two neighbouring numbers of the same sign, whether the values change their sign between them: BOOL [n -
    1, *sizes]. False where the two numbers have different signs.
    """
    one, other = values[:-1], values[1:]
    is_change = (np.sign(one) * np.sign(other) <= 0) & (one != other) & np.isfinite(one) & np.isfinite(other)
    is_beside = (numbers[:-1] * numbers[1:] > 0).reshape(-1, *(1,) * (values.ndim - 1))
    return np.asarray(is_change & is_beside)


def zero_of(numbers: Array, values: Array) -> tuple[Array, Array]:
    """For each element, the largest number at which its curve is 0, by linear interpolation, or NaN. Also returns
    whether the curve's sign changes next to each number.
    """
    changes = sign_changes(numbers, values)
    is_zero = np.zeros(values.shape, bool)
    is_zero[:-1] |= changes
    is_zero[1:] |= changes
    last = len(changes) - 1 - np.argmax(changes[::-1], axis=0)
    one, other = (np.take_along_axis(values, each[None], axis=0)[0] for each in (last, last + 1))
    with np.errstate(all="ignore"):
        crossed = numbers[last] - one * (numbers[last + 1] - numbers[last]) / (other - one)
    return np.where(changes.any(axis=0), crossed, np.nan), is_zero
