"""Pow of integers with constant exponents, computed in integers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from triune.graph.decompose.context import Context, Decomposition
from triune.graph.ranges import WHOLE

_MOST_MULTIPLIED = 63
"""The largest exponent: a larger power of any integer but -1, 0 and 1 is beyond INT64."""


def power(c: Context) -> bool:
    """Pow as repeated multiplication of integers, since fp32 represents integers of 24 bits only.

    Several integral exponents, in a tensor of floats, are cast to integers. A Pow with fractions or negative exponents
    stays.
    """
    elem_type, exponents = c.values.elem_type(c.input(0)), c.values.constant(c.input(1))
    if elem_type not in WHOLE or exponents is None or not exponents.size or not _are_integers(exponents):
        return False
    number = int(exponents.reshape(-1)[0])
    if _is_one_number(c, exponents) and 0 < number <= _MOST_MULTIPLIED:
        c.give(_multiplied(c, number))
        return True
    if exponents.dtype.kind != "f":
        return False
    whole = c.build.constant(exponents, helper.tensor_dtype_to_np_dtype(elem_type))
    c.give(c.build.op("Pow", c.input(0), whole))
    return True


def _are_integers(exponents: NDArray[Any]) -> bool:
    return bool(np.all((exponents >= 0) & (exponents < np.iinfo(np.int8).max) & (np.floor(exponents) == exponents)))


def _is_one_number(c: Context, exponents: NDArray[Any]) -> bool:
    """Whether the exponent is one number of a rank that does not change the shape of the base."""
    return exponents.size == 1 and exponents.ndim <= (c.values.rank(c.input(0)) or 0)


def _multiplied(c: Context, number: int) -> str:
    """base^number by binary exponentiation: the product of base^(2^i) over the bits i that are set in `number`."""
    square, product = c.input(0), ""
    while number:
        if number & 1:
            product = c.build.op("Mul", product, square) if product else square
        number >>= 1
        square = c.build.op("Mul", square, square) if number else square
    return product


TABLE: dict[str, Decomposition] = {"Pow": power}
