"""A lowering that computes directly: the primitives of the shared lowerings in numpy, and a function that computes
nodes by them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from triune.graph.conversion.constants import narrow_constant
from triune.graph.conversion.context import NodeContext
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.lowering.table import SHARED
from triune.graph.conversion.scope import Scope
from triune.graph.values import attributes_of

Array = NDArray[Any]

_OPS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "And": np.logical_and,
    "Not": np.logical_not,
    "Where": np.where,
    "Round": np.rint,
    "Div": lambda x, y: np.divide(x, y) if x.dtype.kind == "f" else (x / y).astype(x.dtype),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Relu": lambda x: np.maximum(x, 0),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "LeakyRelu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "Elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x),
}


class NumpyBuilder(Builder[Array]):
    """A `Builder` that computes each operation with numpy instead of writing it to a program."""

    runtime = "numpy"

    def dtype(self, x: Array) -> np.dtype[Any]:
        return x.dtype

    def shape(self, x: Array) -> tuple[int | None, ...]:
        return x.shape

    def dim(self, x: Array, axis: int) -> int:
        return x.shape[axis]

    def constant(self, array: Any) -> Array:
        return np.asarray(array)

    def full(self, dims: Sequence[Any], number: float, dtype: Any) -> Array:
        return np.full(dims, number, dtype)

    def iota(self, count: Any) -> Array:
        return np.arange(count, dtype=np.int32)

    def elementwise(self, op: str, *operands: Array, **attributes: Any) -> Array:
        return np.asarray((_OPS.get(op) or getattr(np, op.lower()))(*operands, **attributes))

    def alike(self, op: str, *operands: Any) -> Array:
        value = next(each for each in reversed(operands) if isinstance(each, np.ndarray))
        return self.elementwise(op, *(x if isinstance(x, np.ndarray) else value.dtype.type(x) for x in operands))

    def cast(self, x: Array, dtype: Any) -> Array:
        return x.astype(dtype)

    def mod(self, x: Array, y: Any) -> Array:
        return np.mod(x, y).astype(x.dtype)

    def inverse_root(self, x: Array) -> Array:
        return 1 / np.sqrt(x)

    def matmul(self, x: Array, y: Array, *, is_transposed: bool = False) -> Array:
        return x @ (y.T if is_transposed else y)

    def reduce(self, op: str, x: Array, axes: Sequence[int], *, keepdims: bool) -> Array:
        return np.asarray(getattr(np, op.removeprefix("Reduce").lower())(x, tuple(axes), keepdims=keepdims))

    def arg(self, op: str, x: Array, axis: int, *, keepdims: bool) -> Array:
        return np.asarray(getattr(np, op.lower())(x, axis, keepdims=keepdims), np.int32)

    def cumsum(self, x: Array, axis: int) -> Array:
        return np.cumsum(x, axis, x.dtype)

    def sizes(self, x: Array, start: int, end: int) -> Array:
        return np.array(x.shape[start:end], np.int32)

    def reshape(self, x: Array, dims: Sequence[Any]) -> Array:
        return x.reshape(dims)

    def expand(self, x: Array, dims: Sequence[Any]) -> Array:
        return np.broadcast_to(x, dims)

    def tile(self, x: Array, reps: Any) -> Array:
        return np.tile(x, reps)

    def transpose(self, x: Array, permutation: Sequence[int]) -> Array:
        return x.transpose(permutation)

    def unsqueeze(self, x: Array, axes: Sequence[int]) -> Array:
        return np.expand_dims(x, tuple(axes))

    def squeeze(self, x: Array, axes: Sequence[int]) -> Array:
        return x.squeeze(tuple(axes))

    def concat(self, values: Sequence[Array], axis: int) -> Array:
        return np.concatenate(values, axis)

    def slice(self, x: Array, axis: int, start: Any, end: Any) -> Array:
        return np.take(x, np.arange(start, end), axis)

    def take(self, x: Array, index: Any, axis: int = 0) -> Array:
        return np.asarray(np.take(x, index, axis))

    def with_row(self, x: Array, row: Array, index: Array) -> Array:
        filled = x.copy()
        filled[index] = row
        return filled

    def from_front(self, indices: Array, size: Any) -> Array:
        return np.where(indices < 0, indices + size, indices)

    def gather_elements(self, x: Array, indices: Array, axis: int) -> Array:
        return np.take_along_axis(x, indices, axis)

    def gather_nd(self, x: Array, indices: Array) -> Array:
        return x[tuple(np.moveaxis(indices, -1, 0))]

    def reverse(self, x: Array, axis: int) -> Array:
        return np.flip(x, axis)

    def reverse_sequence(self, x: Array, lengths: Array, time: int, batch: int) -> Array:
        turned = np.moveaxis(x, (time, batch), (0, 1)).copy()
        for row, length in enumerate(lengths):
            turned[:length, row] = turned[:length, row][::-1].copy()
        return np.moveaxis(turned, (0, 1), (time, batch))

    def top_k(self, x: Array, count: Any, axis: int, *, is_largest: bool) -> tuple[Array, Array]:
        order = np.argsort(-x if is_largest else x, axis, kind="stable").take(np.arange(count), axis)
        return np.take_along_axis(x, order, axis), order.astype(np.int32)

    def nonzero_indices(self, x: Array) -> Array:
        return np.argwhere(x).astype(np.int32)

    def loop(self, limit: Any, starts: Sequence[Array], step: Callable[..., Sequence[Array]]) -> list[Array]:
        values = list(starts)
        for number in range(limit):
            values = list(step(np.asarray(number, np.int32), *values))
        return values


class _Scope(Scope[Array]):
    runtime = "numpy"

    def make(self, tensor: TensorProto) -> Array:
        return narrow_constant(tensor, self.runtime)

    def known(self, value: Array) -> Array:
        return value

    def narrowed(self, tensor: TensorProto) -> Array:
        return narrow_constant(tensor, self.runtime)


def computed(node: NodeProto, graph: GraphProto, inputs: dict[str, Array]) -> list[Array]:
    """Compute the outputs of a node whose lowering is shared. `graph` is the graph that contains it; `inputs` have the
    narrow types of Apple's programs.
    """
    scope = _Scope(graph)
    for name, value in inputs.items():
        scope.put(name, value)

    def refuse(*_: Any) -> list[Array]:
        raise NotImplementedError("a node with graphs")

    SHARED[node.op_type](NodeContext(node, attributes_of(node), scope, refuse, NumpyBuilder()))
    return [scope.value(name) for name in node.output if name]
