"""The primitives with which shared lowerings write core ops, for any kind of program."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.graph.conversion.scope import V

Dim: TypeAlias = int | V
"""The size of a dimension: a number, or an int32 scalar that the program computes at run time."""

Operand: TypeAlias = V | float
"""A value, or a number that takes the element type of the other operand."""


class Builder(ABC, Generic[V]):
    """Writes operations into one kind of program (ML Program, Core AI). The methods have the names and meanings of
    ONNX's operators.

    Values are opaque: only the builder knows their type and shape. Axes and permutations are not negative. A
    primitive raises Refusal if the program cannot express it.
    """

    runtime: str
    """The name of the target runtime in messages: "Core ML"."""

    # Methods for the types and shapes of values.

    @abstractmethod
    def dtype(self, x: V) -> np.dtype[Any]:
        """The numpy dtype of a value."""

    @abstractmethod
    def shape(self, x: V) -> tuple[int | None, ...]:
        """The shape, with None for each free dimension."""

    @abstractmethod
    def dim(self, x: V, axis: int) -> Dim[V]:
        """The size of one dimension: a number, or the value that computes it if the dimension is free."""

    def dims(self, x: V) -> list[Dim[V]]:
        """The sizes of all dimensions: numbers, or values that compute them."""
        return [self.dim(x, axis) for axis in range(self.rank(x))]

    def rank(self, x: V) -> int:
        """The number of dimensions."""
        return len(self.shape(x))

    def is_float(self, x: V) -> bool:
        """Whether the dtype is fp16 or fp32."""
        return self.dtype(x).kind == "f"

    def is_bool(self, x: V) -> bool:
        """Whether the dtype is bool."""
        return self.dtype(x) == np.bool_

    # Methods that make constants.

    @abstractmethod
    def constant(self, array: NDArray[Any] | np.generic) -> V:
        """A constant, in the array's own dtype."""

    @abstractmethod
    def full(self, dims: Sequence[Dim[V]], number: float, dtype: Any) -> V:
        """ConstantOfShape: a tensor filled with one number."""

    @abstractmethod
    def iota(self, count: Dim[V]) -> V:
        """Range: 0, 1, ..., count - 1 in int32."""

    # Methods that compute element by element.

    @abstractmethod
    def elementwise(self, op: str, *operands: V, **attributes: Any) -> V:
        """ONNX's elementwise operator `op`, whose operands broadcast. Every attribute must be given."""

    @abstractmethod
    def alike(self, op: str, *operands: Operand[V]) -> V:
        """Build an operation as `elementwise` does. Free dimensions on the same axis must be equal, so that they need
        no broadcast.
        """

    @abstractmethod
    def cast(self, x: V, dtype: Any) -> V:
        """Cast; `x` itself if it has that type. A cast to bool is `x != 0`."""

    def summable(self, x: V) -> V:
        """`x` cast to the type in which it is summed: fp32 if the runtime would accumulate fp16 in fp16."""
        return x

    def add(self, x: Operand[V], y: Operand[V]) -> V:
        """Add."""
        return self.alike("Add", x, y)

    def sub(self, x: Operand[V], y: Operand[V]) -> V:
        """Sub."""
        return self.alike("Sub", x, y)

    def mul(self, x: Operand[V], y: Operand[V]) -> V:
        """Mul."""
        return self.alike("Mul", x, y)

    def div(self, x: Operand[V], y: Operand[V]) -> V:
        """Div."""
        return self.alike("Div", x, y)

    @abstractmethod
    def mod(self, x: V, y: Operand[V]) -> V:
        """Mod of numbers that are not negative."""

    def minimum(self, x: Operand[V], y: Operand[V]) -> V:
        """Min."""
        return self.alike("Min", x, y)

    def maximum(self, x: Operand[V], y: Operand[V]) -> V:
        """Max."""
        return self.alike("Max", x, y)

    def greater(self, x: Operand[V], y: Operand[V]) -> V:
        """Greater."""
        return self.alike("Greater", x, y)

    def equal(self, x: Operand[V], y: Operand[V]) -> V:
        """Equal."""
        return self.alike("Equal", x, y)

    def both(self, x: V, y: V) -> V:
        """And."""
        return self.alike("And", x, y)

    def where(self, condition: V, x: Operand[V], y: Operand[V]) -> V:
        """Select elements of `x` where the condition is true, else of `y`. At least one of the two must be a value, not
        a number.
        """
        return self.alike("Where", condition, x, y)

    def clip(self, x: V, low: Operand[V], high: Operand[V]) -> V:
        """Clip."""
        return self.minimum(self.maximum(x, low), high)

    def floor(self, x: V) -> V:
        """Floor, of finite numbers."""
        return self.elementwise("Floor", x)

    def ceil(self, x: V) -> V:
        """Ceil, of finite numbers."""
        return self.elementwise("Ceil", x)

    @abstractmethod
    def inverse_root(self, x: V) -> V:
        """1 / sqrt(x)."""

    # Methods for products, and for reductions along axes.

    @abstractmethod
    def matmul(self, x: V, y: V, *, is_transposed: bool = False) -> V:
        """MatMul of values of the same rank, or with a matrix `y`, which is transposed first if `is_transposed`."""

    @abstractmethod
    def reduce(self, op: str, x: V, axes: Sequence[int], *, keepdims: bool) -> V:
        """ONNX's reduction `op`; `x` is not bool."""

    @abstractmethod
    def arg(self, op: str, x: V, axis: int, *, keepdims: bool) -> V:
        """ArgMax or ArgMin: the first index, in int32; `x` is not bool."""

    @abstractmethod
    def cumsum(self, x: V, axis: int) -> V:
        """CumSum."""

    # Methods that change shapes.

    @abstractmethod
    def sizes(self, x: V, start: int, end: int) -> V:
        """Shape: the sizes of the dimensions from `start` to before `end`, at least one, as int32 (n)."""

    @abstractmethod
    def reshape(self, x: V, dims: Sequence[Dim[V]]) -> V:
        """Reshape."""

    @abstractmethod
    def expand(self, x: V, dims: Sequence[Dim[V]]) -> V:
        """Expand to exactly this shape."""

    @abstractmethod
    def tile(self, x: V, reps: V | Sequence[int]) -> V:
        """Tile."""

    @abstractmethod
    def transpose(self, x: V, permutation: Sequence[int]) -> V:
        """Transpose."""

    @abstractmethod
    def unsqueeze(self, x: V, axes: Sequence[int]) -> V:
        """Unsqueeze; `axes` are those of the result."""

    @abstractmethod
    def squeeze(self, x: V, axes: Sequence[int]) -> V:
        """Squeeze. If a free dimension is not 1 at run time, the program fails."""

    @abstractmethod
    def concat(self, values: Sequence[V], axis: int) -> V:
        """Concat of at least one value."""

    def stack(self, values: Sequence[V], axis: int) -> V:
        """Stack: concatenate the values along a new axis."""
        return self.concat([self.unsqueeze(value, [axis]) for value in values], axis)

    # Methods that read and write by index.

    @abstractmethod
    def slice(self, x: V, axis: int, start: Dim[V], end: Dim[V]) -> V:
        """Slice [start, end) along one axis, with step 1; both are integers within the dimension."""

    def split(self, x: V, sizes: Sequence[int], axis: int) -> list[V]:
        """Split."""
        ends = np.cumsum(sizes).tolist()
        return [self.slice(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]

    @abstractmethod
    def take(self, x: V, index: Dim[V], axis: int = 0) -> V:
        """Gather by one index, which is not negative; the axis is dropped."""

    @abstractmethod
    def with_row(self, x: V, row: V, index: V) -> V:
        """ScatterElements: a copy of `x` with `row` at the index `index` of the first dimension."""

    @abstractmethod
    def from_front(self, indices: V, size: Dim[V]) -> V:
        """Make indices non-negative: negative ones count from the end of a dimension of this size, so `size` is
        added.
        """

    @abstractmethod
    def gather_elements(self, x: V, indices: V, axis: int) -> V:
        """GatherElements by indices that are not negative; `x` and `indices` have equal sizes along all other axes."""

    @abstractmethod
    def gather_nd(self, x: V, indices: V) -> V:
        """GatherND by indices that are not negative."""

    @abstractmethod
    def reverse(self, x: V, axis: int) -> V:
        """Reverse an axis: Slice with step -1."""

    @abstractmethod
    def reverse_sequence(self, x: V, lengths: V, time: int, batch: int) -> V:
        """ReverseSequence."""

    @abstractmethod
    def top_k(self, x: V, count: Dim[V], axis: int, *, is_largest: bool) -> tuple[V, V]:
        """TopK, sorted: the elements, and their indices in int32."""

    @abstractmethod
    def nonzero_indices(self, x: V) -> V:
        """NonZero, transposed to (count, rank): the indices of the elements of `x` that are not 0."""

    # Methods for control flow.

    @abstractmethod
    def loop(self, limit: Dim[V], starts: Sequence[V], step: Callable[..., Sequence[V]]) -> list[V]:
        """Loop: the values after `limit` steps.

        `step` takes the number of the step (an int32 scalar) and the current values, and returns the new values, of the
        same types and shapes.
        """

    # Methods that compute with sizes.

    def product(self, dims: Sequence[Dim[V]]) -> Dim[V]:
        """The product of sizes, each a number or a value."""
        number = math.prod(dim for dim in dims if isinstance(dim, int))
        computed = [dim for dim in dims if not isinstance(dim, int)]
        if not computed:
            return number
        total = computed[0]
        for dim in computed[1:]:
            total = self.mul(total, dim)
        return total if number == 1 else self.mul(total, number)
