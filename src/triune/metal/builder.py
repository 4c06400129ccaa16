"""The primitives of the shared lowerings, implemented with MLX. MLX is lazy: it computes when elements are read."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from triune.graph.conversion.lowering.builder import Builder, Dim, Operand
from triune.graph.exact_parts import MOST_EXACT
from triune.metal.elementwise import OPS
from triune.metal.images import Images
from triune.metal.library import Value, dtype_of, from_numpy, kind_of, mx, to_numpy
from triune.metal.packing import Quantized

MOST_UNROLLED = 64
"""The largest number of steps of a loop in a compiled function, which has all steps one after another."""


class MlxBuilder(Builder[Value]):
    """A `Builder` that calls MLX for each operation, instead of writing the operation to a program. All dimensions are
    known numbers.

    Attributes:
        faults: BOOL scalars, each true if an index was out of range, with the error message. The result is then
            computed with the nearest valid index, since MLX itself does not check indices and would access other
            memory.
        is_compiling: whether MLX is tracing the function to compile it, so that the values have no elements yet.
        images: the results of convolutions in this run, as views with channels first (`metal.images`).
        float_type: MLX's type for ONNX's FLOAT.
        quantized: the packed weights of matrix products, by the name of the second operand.
        checks: whether indices are checked here; otherwise the caller must check them.
        whole: constant integer matrices split into parts by `metal.whole`, by the name of the matrix product.
        wavelengths: the results of `attention.wavelengths`, by the name of the table of cosines, for tables that MLX
            may replace by computing the angles.
    """

    runtime = "MLX"

    def __init__(
        self,
        float_type: Any = mx.float32,
        quantized: Mapping[str, Quantized] = MappingProxyType({}),
        wavelengths: Mapping[str, Value] = MappingProxyType({}),
        *,
        checks: bool = True,
    ) -> None:
        self.begin(is_compiling=False)
        self.checks = checks
        self.whole: dict[str, list[tuple[slice, Value]]] = {}
        self.float_type = float_type
        self.quantized = quantized
        self.wavelengths = wavelengths

    def begin(self, *, is_compiling: bool) -> None:
        """Begin a run: clear `faults` and `images`, and set `is_compiling`."""
        self.faults: list[tuple[Value, str]] = []
        self.is_compiling = is_compiling
        self.images = Images()

    def kind_of(self, elem_type: int) -> Any:
        """MLX's type for an element type of ONNX. Raises KeyError if MLX has none."""
        if elem_type == TensorProto.FLOAT:
            return self.float_type
        return kind_of(helper.tensor_dtype_to_np_dtype(elem_type))

    def number(self, dim: Dim[Value]) -> int:
        """Return a dimension as a number."""
        return dim if isinstance(dim, int) else int(to_numpy(dim).reshape(()))

    def numbers(self, dims: Sequence[Dim[Value]]) -> list[int]:
        """Return dimensions as numbers."""
        return [self.number(dim) for dim in dims]

    def dtype(self, x: Value) -> np.dtype[Any]:
        """Implements `Builder.dtype`."""
        return dtype_of(x)

    def is_float(self, x: Value) -> bool:
        """Whether the dtype is fp16, bf16 or fp32."""
        return mx.issubdtype(x.dtype, mx.floating)

    def shape(self, x: Value) -> tuple[int | None, ...]:
        """Implements `Builder.shape`."""
        return x.shape

    def dim(self, x: Value, axis: int) -> int:
        """Implements `Builder.dim`."""
        return x.shape[axis]

    def constant(self, array: NDArray[Any] | np.generic) -> Value:
        """Implements `Builder.constant`."""
        return from_numpy(np.asarray(array))

    def full(self, dims: Sequence[Dim[Value]], number: float, dtype: Any) -> Value:
        """Implements `Builder.full`."""
        kind = kind_of(dtype)
        return mx.broadcast_to(mx.array(number, dtype=kind), self.numbers(dims))

    def iota(self, count: Dim[Value]) -> Value:
        """Implements `Builder.iota`."""
        return mx.arange(self.number(count), dtype=mx.int32)

    def elementwise(self, op: str, *operands: Value, **attributes: Any) -> Value:
        """Implements `Builder.elementwise`."""
        return self.images.elementwise(partial(OPS[op], **attributes) if attributes else OPS[op], operands)

    def alike(self, op: str, *operands: Operand[Value]) -> Value:
        """Implements `Builder.alike`."""
        values: list[Value] = [each for each in operands if isinstance(each, mx.array)]
        kind = values[-1].dtype
        given = [x if isinstance(x, mx.array) else mx.array(x, dtype=kind) for x in operands]
        return self.images.elementwise(OPS[op], given)

    def cast(self, x: Value, dtype: Any) -> Value:
        """Implements `Builder.cast`."""
        return self.cast_to(x, kind_of(dtype))

    def cast_to(self, x: Value, kind: Any) -> Value:
        """Cast `x` to a type of MLX. Cast to bool, an element is true if it is not 0."""
        if x.dtype == kind:
            return x

        def cast(each: Value) -> Value:
            return each != 0 if kind == mx.bool_ else each.astype(kind)

        return self.images.elementwise(cast, [x])

    def paired(self, x: Value, weights: Value) -> tuple[Value, Value]:
        """Cast both operands of a product to `float_type`, if that is a type of 16 bits and one of them has it.

        The inputs of a graph in 16 bits are fp32. Without this, MLX would multiply in fp32, and cast the weights to
        fp32 in each run.
        """
        narrow = self.float_type
        if narrow != mx.float32 and narrow in (x.dtype, weights.dtype):
            return self.cast_to(x, narrow), self.cast_to(weights, narrow)
        return x, weights

    def summable(self, x: Value) -> Value:
        """Implements `Builder.summable`."""
        return self.cast_to(x, mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x

    def mod(self, x: Value, y: Operand[Value]) -> Value:
        """Implements `Builder.mod`."""
        return self.elementwise("Mod", x, y if isinstance(y, mx.array) else mx.array(y, dtype=x.dtype), fmod=0)

    def inverse_root(self, x: Value) -> Value:
        """Implements `Builder.inverse_root`."""
        return self.images.elementwise(mx.rsqrt, [x])

    def matmul(self, x: Value, y: Value, *, is_transposed: bool = False) -> Value:
        """Implements `Builder.matmul`."""
        return product(x, mx.swapaxes(y, -1, -2) if is_transposed else y)

    def reduce(self, op: str, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
        """Implements `Builder.reduce`."""
        if op in ("ReduceMax", "ReduceMin") and x.size == 0:
            return _extreme_of_none(op, x, axes, keepdims=keepdims)
        function = getattr(mx, op.removeprefix("Reduce").lower())
        return self.cast_to(self.images.reduced(function, x, axes, keepdims=keepdims), x.dtype)

    def arg(self, op: str, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Implements `Builder.arg`."""
        return getattr(mx, op.lower())(x, axis=axis, keepdims=keepdims).astype(mx.int32)

    def cumsum(self, x: Value, axis: int) -> Value:
        """Implements `Builder.cumsum`."""
        return mx.cumsum(x, axis)

    def sizes(self, x: Value, start: int, end: int) -> Value:
        """Implements `Builder.sizes`."""
        return mx.array(np.array(x.shape[start:end], np.int32))

    def reshape(self, x: Value, dims: Sequence[Dim[Value]]) -> Value:
        """Implements `Builder.reshape`."""
        return mx.reshape(x, self.numbers(dims))

    def expand(self, x: Value, dims: Sequence[Dim[Value]]) -> Value:
        """Implements `Builder.expand`."""
        return mx.broadcast_to(x, self.numbers(dims))

    def tile(self, x: Value, reps: Value | Sequence[int]) -> Value:
        """Implements `Builder.tile`."""
        return mx.tile(x, to_numpy(reps).tolist() if isinstance(reps, mx.array) else list(reps))

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        """Implements `Builder.transpose`."""
        return mx.transpose(x, list(permutation))

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        """Implements `Builder.unsqueeze`."""
        return mx.expand_dims(x, list(axes))

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        """Implements `Builder.squeeze`."""
        return mx.squeeze(x, list(axes)) if axes else x

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Implements `Builder.concat`."""
        return self.images.joined(values, axis)

    def slice(self, x: Value, axis: int, start: Dim[Value], end: Dim[Value]) -> Value:
        """Implements `Builder.slice`."""
        return x[(*[slice(None)] * axis, slice(self.number(start), self.number(end)))]

    def take(self, x: Value, index: Dim[Value], axis: int = 0) -> Value:
        """Implements `Builder.take`."""
        return mx.take(x, index, axis)

    def with_row(self, x: Value, row: Value, index: Value) -> Value:
        """Implements `Builder.with_row`."""
        return mx.slice_update(x, row[None], start_indices=index.reshape((1,)), axes=(0,))

    def from_front(self, indices: Value, size: Dim[Value]) -> Value:
        """Implements `Builder.from_front`."""
        return self.where(self.greater(0, indices), self.add(indices, size), indices)

    def gather_elements(self, x: Value, indices: Value, axis: int) -> Value:
        """Implements `Builder.gather_elements`."""
        return mx.take_along_axis(x, indices, axis)

    def gather_nd(self, x: Value, indices: Value) -> Value:
        """Implements `Builder.gather_nd`."""
        return x[tuple(indices[..., each] for each in range(indices.shape[-1]))]

    def reverse(self, x: Value, axis: int) -> Value:
        """Implements `Builder.reverse`."""
        return x[(*[slice(None)] * axis, slice(None, None, -1))]

    def reverse_sequence(self, x: Value, lengths: Value, time: int, batch: int) -> Value:
        """Implements `Builder.reverse_sequence`."""
        rest = [axis for axis in range(x.ndim) if axis not in (time, batch)]
        order = [batch, time, *rest]
        turned = mx.transpose(x, order)
        step, lengths = mx.arange(turned.shape[1])[None], lengths.astype(mx.int32)[:, None]
        places = mx.where(step < lengths, lengths - 1 - step, step)
        places = places.reshape((*places.shape, *[1] * len(rest)))
        found = mx.take_along_axis(turned, mx.broadcast_to(places, turned.shape), 1)
        return mx.transpose(found, [int(each) for each in np.argsort(order)])

    def top_k(self, x: Value, count: Dim[Value], axis: int, *, is_largest: bool) -> tuple[Value, Value]:
        """Implements `Builder.top_k`. Equal elements keep their order."""
        size = x.shape[axis]
        if self.number(count) > size:
            raise ValueError(f"the first {self.number(count)} of a dimension of {size} elements")
        if is_largest:
            # argsort is stable and ascending. Reversing before and after it sorts in descending order and keeps the
            # order of equal elements.
            order = self.reverse(size - 1 - mx.argsort(self.reverse(x, axis), axis).astype(mx.int32), axis)
        else:
            order = mx.argsort(x, axis).astype(mx.int32)
        order = self.slice(order, axis, 0, count)
        return mx.take_along_axis(x, order, axis), order

    def nonzero_indices(self, x: Value) -> Value:
        """Implements `Builder.nonzero_indices` with numpy: MLX must know the shape of an array before its elements."""
        return from_numpy(np.argwhere(to_numpy(x)).astype(np.int32))

    def loop(self, limit: Dim[Value], starts: Sequence[Value], step: Callable[..., Sequence[Value]]) -> list[Value]:
        """Implements `Builder.loop`."""
        values, count = list(starts), self.number(limit)
        self.require_short(count)
        for number in range(count):
            values = list(step(mx.array(number, dtype=mx.int32), *values))
        return values

    def require_short(self, count: int) -> None:
        """Raise ValueError if the function is being compiled and a loop has more than `MOST_UNROLLED` steps."""
        if self.is_compiling and count > MOST_UNROLLED:
            raise ValueError(f"a loop of {count} steps; compiled functions have at most {MOST_UNROLLED}")

    def within(self, indices: Value, size: int, what: str) -> Value:
        """Convert indices into a dimension of `size` elements to non-negative ones, and check their range.

        Negative indices count from the end. An index out of range is recorded in `faults`, with a message that begins
        with `what`, and the nearest valid index is returned in its place. If `checks` is False, `indices` are returned
        as they are.
        """
        if indices.size == 0 or not self.checks:
            return indices
        if (known := self._known(indices)) is not None and -size <= known.min() and known.max() < size:
            return from_numpy(np.where(known < 0, known + size, known))
        front = mx.where(indices < 0, indices + size, indices)
        self.faults.append(
            (mx.any((front < 0) | (front >= size)), f"{what} is out of range: the dimension has {size} elements")
        )
        return mx.clip(front, 0, max(size - 1, 0))

    def _known(self, x: Value) -> NDArray[Any] | None:
        """While MLX traces the function to compile it, the elements of a value that depends on no input, else None."""
        try:
            return to_numpy(x) if self.is_compiling else None
        except ValueError:
            return None


def _extreme_of_none(op: str, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
    """The maximum or minimum of an empty set: the lowest or highest number of the type."""
    dims = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes]
    dtype = dtype_of(x)
    is_max = op == "ReduceMax"
    if dtype.kind in "iu":
        number = np.iinfo(dtype).min if is_max else np.iinfo(dtype).max
    else:
        number = -np.inf if is_max else np.inf
    return mx.full(dims, number, dtype=x.dtype)


_BITS, _CHUNK = 8, 256


def whole_product(x: Value, y: Value, largest: int) -> Value:
    """MatMul of INT32 matrices with small elements. Partial sums are computed in fp32, which represents them exactly.

    Args:
        x: [..., terms].
        y: [..., terms, columns] or [terms].
        largest: the largest product of two elements; at most 2^24.
    """
    step, terms = MOST_EXACT // largest, x.shape[-1]
    total = mx.array(0, dtype=mx.int32)
    for start in range(0, max(terms, 1), step):
        some = slice(start, start + step)
        columns = y[..., some, :] if y.ndim > 1 else y[some]
        total = total + mx.matmul(x[..., some].astype(mx.float32), columns.astype(mx.float32)).astype(mx.int32)
    return total


def product(x: Value, y: Value) -> Value:
    """MatMul of floats or integers. Integers wrap around."""
    if mx.issubdtype(x.dtype, mx.floating):
        return mx.matmul(x, y)
    # MLX multiplies matrices of floats only, so split integers into digits of 8 bits, and sums into parts of 256 terms:
    # a sum of 256 products of such digits is exact in fp32.
    dtype, parts = x.dtype, range(0, x.dtype.size * 8, _BITS)
    kind = dtype if dtype.size >= mx.int32.size else mx.int32
    x, y = x.astype(kind), y.astype(kind)
    total = mx.array(0, dtype=kind)
    for start in range(0, max(x.shape[-1], 1), _CHUNK):
        some = slice(start, start + _CHUNK)
        rows, columns = x[..., some], y[..., some, :] if y.ndim > 1 else y[some]
        for left in parts:
            for right in range(0, parts.stop - left, _BITS):
                bits = (((each >> shift) & 0xFF).astype(mx.float32) for each, shift in ((rows, left), (columns, right)))
                total = total + (mx.matmul(*bits).astype(kind) << (left + right))
    return total.astype(dtype)


def biased_product(x: Value, weight: Value, bias: Value) -> Value:
    """Compute x @ weight + bias, in one operation if MLX has it for the operands.

    Args:
        x: [..., terms].
        weight: [terms, columns].
        bias: [columns].
    """
    if x.ndim < 2 or x.size == 0 or weight.size == 0 or not mx.issubdtype(x.dtype, mx.floating):
        return product(x, weight) + bias
    return mx.addmm(bias.astype(x.dtype), x, weight)
