"""What values are scaled by: numbers below 1, of all elements or of each channel."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from triune.graph.values import Values

_STRONG = 1 / 128
"""What is scaled by less than this is beyond fp16 where the result is of the size of activations, some hundreds."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a value is scaled by.

    Attributes:
        op_type: Mul or Div.
        name: the number, of one element and one dimension at most, that is computed; empty where it is a constant.
        factors: the constant that multiplies: of one element, or of one for each place along one axis; fp64.
    """

    op_type: str
    name: str
    factors: NDArray[np.float64] = field(default_factory=lambda: np.ones(()))

    @property
    def is_positive(self) -> bool:
        """Is all of it above 0?"""
        return bool(np.all(self.factors > 0))

    @property
    def is_power_of_two(self) -> bool:
        """Is nothing rounded by it?"""
        return bool(np.all(np.frexp(self.factors)[0] == 0.5))

    def axis(self, rank: int) -> int:
        """The axis of a value of `rank` dimensions along which it differs."""
        places = [place for place, size in enumerate(self.factors.shape) if size != 1]
        return places[0] + rank - self.factors.ndim


def is_strong(scale: Scale) -> bool:
    """Is it so far below 1 that what it scales is likely to be beyond fp16?"""
    return not scale.name and bool(np.abs(scale.factors).max() < _STRONG)


def scales_of(values: Values, node: NodeProto) -> list[tuple[str, Scale]]:
    """The operands of a product or quotient that may be scaled by the other one: by one number, or one a channel."""
    if node.op_type not in ("Mul", "Div"):
        return []
    found: list[tuple[str, Scale]] = []
    for place in (1, 0) if node.op_type == "Mul" else (1,):
        name, by = node.input[1 - place], node.input[place]
        rank, sizes = values.rank(name), values.shape(by)
        if rank is None or sizes is None or len(sizes) > rank:
            continue
        if values.tensor(by) is None:
            if len(sizes) <= 1 and all(size == 1 for size in sizes):
                found.append((name, Scale(node.op_type, by)))
            continue
        if sum(size != 1 for size in sizes) > 1:
            continue
        array = values.constant(by)
        if array is None or not _fits(values, name, array):
            continue
        factors = array.astype(np.float64)
        with np.errstate(divide="ignore"):
            factors = 1 / factors if node.op_type == "Div" else factors
        if array.size == 1:
            factors = factors.reshape(())
        if np.all(factors != 0) and np.abs(factors).max(initial=0) < 1:
            found.append((name, Scale("Mul", "", factors)))
    return found


def _fits(values: Values, name: str, array: NDArray[np.generic]) -> bool:
    """Has the value the sizes of what it is scaled by, where that is more than one number?"""
    shape = values.shape(name) or ()
    return array.size == 1 or all(
        size == 1 or size == own for size, own in zip(array.shape[::-1], shape[::-1], strict=False)
    )
