"""The operation that is raised: its operands as tensors of the graph, by their names in the dialect; its attributes."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreai.raising.types import Element, element_type, tensor_type
from triune.coreai.raising.values import Held
from triune.graph.axes import existing_axis
from triune.graph.raising.graph import Tensor
from triune.graph.raising.types import Array, DType, TensorType

H = TypeVar("H", bound=Held)

LARGEST_SIZE = (1 << 31) - 1
"""The largest size of a dimension."""

_PICKING = frozenset(
    f"coreai.{name}" for name in ("cast", "slice", "gather_nd", "expand_dims", "shrink_dims", "reshape")
)
"""Operations whose results are elements of their first operand."""

SMALL = 64
"""Constants of at most this many elements are folded while raising; the optimizer folds larger ones."""

_DEPTH = 16


class Given:
    """One operation's operands and attributes.

    Attributes:
        operation: MLIR's operation.
    """

    def __init__(self, operation: Any, held: Callable[[Any], Held]) -> None:
        self.operation = operation
        self._held = held

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of an operand. Raises UnsupportedError if it is not a tensor of real numbers."""
        return self.of(Tensor, name)

    def of(self, kind: type[H], name: str) -> H:
        """The operand `name`, which must be of the class `kind`, such as Complex.

        Raises:
            UnsupportedError: the operand is of another class.
        """
        held = self._held(getattr(self.operation, name))
        if not isinstance(held, kind):
            raise UnsupportedError(f"the operand '{name}' is {type(held).__name__}, not {kind.__name__}")
        return held

    def many(self, name: str) -> list[Tensor]:
        """All operands of a parameter that takes several."""
        found: list[Tensor] = []
        for value in getattr(self.operation, name):
            held = self._held(value)
            if not isinstance(held, Tensor):
                raise UnsupportedError(f"an operand of '{name}' is {type(held).__name__}, not Tensor")
            found.append(held)
        return found

    def all(self) -> list[Held]:
        """All operands in order."""
        return [self._held(value) for value in self.operation.operands]

    def replaced(self, by: Callable[[Held], Held]) -> "Given":
        """A copy of this object in which each operand is replaced by `by(operand)`."""
        return Given(self.operation, lambda value: by(self._held(value)))

    def array(self, name: str) -> Array:
        """The array of a constant operand. Raises UnsupportedError if it is known only at run time."""
        constant = self[name].constant
        if constant is None:
            raise UnsupportedError(f"the operand '{name}' is not a constant")
        return constant

    def ints(self, name: str) -> list[int]:
        """The integers of a constant vector operand."""
        return [int(each) for each in self.array(name).reshape(-1)]

    def integer(self, name: str) -> int:
        """The value of a constant integer operand."""
        found = self.ints(name)
        if len(found) != 1:
            raise InvalidArgumentError(f"the operand '{name}' has {len(found)} values instead of one")
        return found[0]

    def flag(self, name: str) -> bool:
        """The value of a constant bool operand."""
        return bool(self.integer(name))

    def word(self, name: str) -> str:
        """The value of an enumeration attribute, such as "linear"."""
        text = str(getattr(self.operation, name))
        found = re.search(r"<(\w+)>$", text)
        return found[1] if found else text.strip('"')

    def axis(self, name: str, of: str = "input") -> int:
        """A constant axis of the operand `of`, as a non-negative number. Raises InvalidArgumentError if it is out of
        range.
        """
        return existing_axis(self.integer(name), self[of].rank, name)

    def axes(self, name: str, of: str = "input", extra: int = 0) -> list[int]:
        """The constant axes in the operand `name`, as non-negative numbers. A negative axis counts from the end of a
        tensor that has `extra` more dimensions than the operand `of`. Raises InvalidArgumentError if an axis is out of
        range.
        """
        rank = self[of].rank + extra
        return [existing_axis(axis, rank, name) for axis in self.ints(name)]

    def is_of_sizes(self, name: str) -> bool:
        """Whether all elements of the operand are sizes of dimensions or small constants, perhaps gathered or
        concatenated.

        Every integer type of at least 31 bits can hold such numbers.
        """
        return self._is_of_sizes(getattr(self.operation, name), _DEPTH)

    def _is_of_sizes(self, value: Any, depth: int) -> bool:
        owner = getattr(value, "owner", None)
        name = getattr(owner, "name", "")
        if owner is None or depth == 0:
            return False
        if name == "coreai.constant":
            held = self._held(value)
            known = held.constant if isinstance(held, Tensor) else None
            return known is not None and known.size <= SMALL and all(0 <= each <= LARGEST_SIZE for each in known.flat)
        if name in _PICKING:
            return self._is_of_sizes(owner.operands[0], depth - 1)
        if name == "coreai.concat":
            # Skip the first operand, which is the axis.
            return all(self._is_of_sizes(each, depth - 1) for each in list(owner.operands)[1:])
        return name == "coreai.get_shape"

    def result(self, index: int = 0) -> TensorType:
        """The type that a result has in the graph."""
        return tensor_type(self.operation.results[index].type)

    @property
    def dtype(self) -> DType:
        """The element type that the first result has in the graph."""
        return self.result().dtype

    def element(self, index: int = 0) -> Element:
        """The element type that a result has in the program."""
        return element_type(self.operation.results[index].type)

    def producer(self, name: str, operation: str) -> "Given | None":
        """The operation that computes an operand, if it is the operation `operation` and its result is read only here;
        else None.
        """
        value = getattr(self.operation, name)
        owner = getattr(value, "owner", None)
        if getattr(owner, "name", "") != operation or len(list(value.uses)) != 1:
            return None
        return Given(getattr(owner, "opview", owner), self._held)
