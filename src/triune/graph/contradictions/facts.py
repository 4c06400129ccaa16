"""The known facts of a node before it runs: its attributes, the shapes of its operands, and their values if
constant.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from triune.graph.values import Values, attributes_of

Dims: TypeAlias = Sequence[int | None]
"""A shape. None represents an unknown size."""

_MOST_ELEMENTS = 1 << 16
"""Constants of more elements are not read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The known facts of a node.

    Attributes:
        node: the node, of operator set `core_ops.OPSET`.
        values: the types, shapes and constants of the values in its scope.
        attributes: the attributes that it has, without defaults.
    """

    node: NodeProto
    values: Values
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, node: NodeProto, values: Values) -> "Facts":
        """Collect the facts of a node."""
        return cls(node, values, attributes_of(node))

    def name(self, index: int) -> str:
        """The name of an operand; "" if it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def shape(self, index: int) -> Dims | None:
        """The shape of an operand; None if its rank is not known or it is left out."""
        return self.values.shape(self.name(index)) if self.name(index) else None

    def rank(self, index: int) -> int | None:
        """The number of dimensions of an operand; None if it is not known."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def size(self, index: int, axis: int) -> int | None:
        """The size of an operand along an axis; None if it is unknown or there is no such axis."""
        shape = self.shape(index)
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None

    def constant(self, index: int) -> NDArray[Any] | None:
        """The elements of an operand; None if it is not constant or is large."""
        shape = self.values.static_shape(self.name(index)) if self.name(index) else None
        if shape is None or np.prod(shape, dtype=np.float64) > _MOST_ELEMENTS:
            return None
        return self.values.constant(self.name(index))

    def integers(self, index: int) -> list[int] | None:
        """The elements of an operand of integers, as one list; None if it is not constant, or not of integers."""
        array = self.constant(index)
        return None if array is None or array.dtype.kind not in "iu" else [int(each) for each in array.reshape(-1)]

    def described(self, index: int) -> str:
        """An operand and its shape, for messages: `'x' (2, 3)`."""
        return f"'{self.name(index)}' {shown(self.shape(index) or ())}"


Rule: TypeAlias = Callable[[Facts], Iterator[str]]
"""A function that yields a message for each contradiction that it finds in a node."""


def shown(dims: Dims) -> str:
    """A shape for messages: `(2, ?, 3)`."""
    return f"({', '.join('?' if dim is None else str(dim) for dim in dims)})"


def differ(one: int | None, other: int | None) -> bool:
    """Whether two sizes are known and not equal."""
    return one is not None and other is not None and one != other


def must_be(facts: Facts, index: int, wanted: Dims) -> Iterator[str]:
    """Yield a message if the shape of an operand cannot be `wanted`."""
    shape = facts.shape(index)
    if shape is None:
        return
    if len(shape) != len(wanted) or any(differ(*sizes) for sizes in zip(shape, wanted, strict=True)):
        yield f"{facts.described(index)} has to be of shape {shown(wanted)}"


def must_broadcast(facts: Facts, index: int, to: Dims) -> Iterator[str]:
    """Yield a message if an operand cannot be broadcast to a shape."""
    shape = facts.shape(index)
    if shape is None:
        return
    pairs = zip(reversed(shape), reversed(to), strict=False)
    if len(shape) > len(to) or any(one != 1 and differ(one, other) for one, other in pairs):
        yield f"{facts.described(index)} cannot be broadcast to {shown(to)}"


def must_be_an_axis(facts: Facts, name: str, axis: int, rank: int | None) -> Iterator[str]:
    """Yield a message if a tensor of `rank` dimensions has no such axis."""
    if rank and not -rank <= axis < rank:
        yield (
            f"'{name}' is {axis}, and {facts.described(0)} has {rank} dimensions: an axis is from {-rank} to {rank - 1}"
        )
