"""Find scales below 1, one number or one for each channel, in Mul and Div nodes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from triune.graph.values import Values

_STRONG = 1 / 128
"""A scale below this suggests that its operand is beyond fp16: activations of more than 512, times 128, exceed
65504.
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """A number or vector that multiplies a value, or divides it.

    Attributes:
        op_type: Mul or Div.
        name: the name of a scale that is not a constant: one element, at most one dimension; "" if the scale is
            constant.
        factors: a constant scale in fp64: one element, or one for each index along one axis.
    """

    op_type: str
    name: str
    factors: NDArray[np.float64] = field(default_factory=lambda: np.ones(()))

    @property
    def is_positive(self) -> bool:
        """Whether all factors are above 0."""
        return bool(np.all(self.factors > 0))

    @property
    def is_power_of_two(self) -> bool:
        """Whether all factors are powers of 2, so that multiplying by them rounds nothing."""
        return bool(np.all(np.frexp(self.factors)[0] == 0.5))

    def axis(self, rank: int) -> int:
        """The axis of a tensor of `rank` dimensions along which the factors differ."""
        axes = [axis for axis, size in enumerate(self.factors.shape) if size != 1]
        return axes[0] + rank - self.factors.ndim


def is_strong(scale: Scale) -> bool:
    """Whether a scale is so far below 1 that the value it scales is likely to be beyond fp16."""
    return not scale.name and bool(np.abs(scale.factors).max() < _STRONG)


def scales_of(values: Values, node: NodeProto) -> list[tuple[str, Scale]]:
    """The ways to read a Mul or Div as a value and its scale: a * b is a scaled by b, or b scaled by a."""
    if node.op_type not in ("Mul", "Div"):
        return []
    found: list[tuple[str, Scale]] = []
    for position in (1, 0) if node.op_type == "Mul" else (1,):
        name, by = node.input[1 - position], node.input[position]
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
    """Whether an array of factors has the sizes of the value that it scales, so that broadcasting does not enlarge the
    value.
    """
    shape = values.shape(name) or ()
    return array.size == 1 or all(
        size == 1 or size == own for size, own in zip(array.shape[::-1], shape[::-1], strict=False)
    )
