"""Match mean(z^2) + epsilon, with which RMS and layer normalization begin."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.index import Index
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """Add(ReduceMean(z * z), epsilon), a mean over constant axes with keepdims.

    Attributes:
        z: the name of the value that is squared.
        epsilon: the constant that is added.
        axes: the axes of the mean, non-negative and sorted; None if the rank of z is not known.
        square: the node z * z or z^2.
        mean: the ReduceMean.
        total: the Add.
    """

    z: str
    epsilon: float
    axes: tuple[int, ...] | None
    square: NodeProto
    mean: NodeProto
    total: NodeProto

    @property
    def nodes(self) -> Sequence[NodeProto]:
        """All nodes of the pattern, in order."""
        return [self.square, self.mean, self.total]


def match_mean_square(index: Index, add: NodeProto) -> MeanSquare | None:
    """The pattern that ends with this Add, or None."""
    if add.op_type != "Add":
        return None
    for operand in (0, 1):
        epsilon = index.scalar(add.input[1 - operand])
        mean = index.producer(add.input[operand], "ReduceMean")
        square = None if mean is None else index.producer(mean.input[0], "Mul", "Pow")
        if epsilon is None or mean is None or square is None or not _is_square(index, square):
            continue
        if attributes_of(mean).get("keepdims", 1) and index.ints(mean, 1):
            return MeanSquare(square.input[0], epsilon, _axes(index, mean), square, mean, add)
    return None


def uncentered(index: Index, found: MeanSquare) -> str | None:
    """The name of x if z = x - mean(x) over the same axes, so that mean(z^2) is a variance; else None."""
    difference = index.producer(found.z, "Sub")
    mean = None if difference is None else index.producer(difference.input[1], "ReduceMean")
    if difference is None or mean is None or mean.input[0] != difference.input[0]:
        return None
    is_kept = attributes_of(mean).get("keepdims", 1)
    return difference.input[0] if is_kept and _axes(index, mean) == found.axes else None


def _is_square(index: Index, node: NodeProto) -> bool:
    if node.op_type == "Mul":
        return node.input[0] == node.input[1]
    return index.scalar(node.input[1]) == 2


def _axes(index: Index, mean: NodeProto) -> tuple[int, ...] | None:
    rank = index.rank(mean.input[0])
    return None if rank is None else tuple(sorted(axis % rank for axis in index.ints(mean, 1) or ()))
