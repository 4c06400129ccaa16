# ruff: noqa: D102 - `Builder` says what each method writes.
"""The primitives of `Builder` as operations of Core AI."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from typing import cast as cast_type

import numpy as np
from numpy.typing import NDArray

from triune.coreai.library import Value, ops
from triune.coreai.lowering import binary, loops, unary, values
from triune.coreai.lowering.dims import (
    Dim,
    as_scalar,
    cut,
    dim_of,
    elements,
    expand,
    from_front,
    iota,
    repeated,
    retyped,
    row,
    shaped,
    spread,
    squeeze,
    with_known_sizes,
)
from triune.coreai.lowering.gathers import reverse_sequence
from triune.coreai.lowering.values import cast, concat, dtype_of, like, shape_of
from triune.graph.conversion.lowering.builder import Builder

_OPS: dict[str, Callable[..., Value]] = {**unary.OPS, **binary.OPS}
_NAMES = {
    **{op: f"{op.lower()}_" for op in ("Abs", "Not", "Round")},
    **{op: op.lower() for op in ("And", "Or", "Xor")},
    "Div": "divide",
    "Max": "maximum",
    "Min": "minimum",
    "ReduceProd": "reduce_product",
}
"""Core AI's name for each ONNX operator whose name in Core AI is not the ONNX name in lower case."""


class CoreAIBuilder(Builder[Value]):
    """Writes operations at the current insertion point of MLIR."""

    runtime = "Core AI"

    def dtype(self, x: Value) -> np.dtype[Any]:
        return dtype_of(x)

    def shape(self, x: Value) -> tuple[int | None, ...]:
        return shape_of(x)

    def dim(self, x: Value, axis: int) -> Dim:
        return dim_of(x, axis)

    def constant(self, array: NDArray[Any] | np.generic) -> Value:
        return values.constant(array)

    def full(self, dims: Sequence[Dim], number: float, dtype: Any) -> Value:
        return spread(values.constant(np.dtype(dtype).type(number)), dims)

    def iota(self, count: Dim) -> Value:
        return iota(count)

    def elementwise(self, op: str, *operands: Value, **attributes: Any) -> Value:
        if op in _OPS:
            return _OPS[op](*operands, **attributes)
        name = _NAMES.get(op, op.lower())
        return getattr(ops, name if len(operands) == 1 else f"broadcasting_{name}")(*operands)

    def alike(self, op: str, *operands: Any) -> Value:
        value = next(each for each in reversed(operands) if not isinstance(each, (int, float)))
        given = [like(value, x) if isinstance(x, (int, float)) else x for x in operands]
        if op in _OPS or len({shape_of(each) for each in given}) > 1:
            return self.elementwise(op, *given)
        # The operands have one shape, so write the operation that does not broadcast. Where sizes are free, Core AI
        # makes several operations of one that broadcasts.
        name = _NAMES.get(op, op.lower())
        return getattr(ops, f"{name}_" if name in ("and", "or", "xor") else name)(*given)

    def cast(self, x: Value, dtype: Any) -> Value:
        return cast(x, dtype)

    def summable(self, x: Value) -> Value:
        # Sum in fp32: Core AI sums fp16 in fp16, which overflows even for the mean of moderate numbers.
        return cast(x, np.float32) if dtype_of(x) == np.float16 else x

    def mod(self, x: Value, y: Any) -> Value:
        return ops.broadcasting_modulo(x, like(x, y) if isinstance(y, (int, float)) else y)

    def floor(self, x: Value) -> Value:
        return unary.floor(x)

    def ceil(self, x: Value) -> Value:
        return unary.ceil(x)

    def inverse_root(self, x: Value) -> Value:
        return ops.rsqrt(x)

    def matmul(self, x: Value, y: Value, *, is_transposed: bool = False) -> Value:
        right = values.transpose(y, [1, 0]) if is_transposed else y
        is_alike = len(shape_of(x)) == len(shape_of(y)) == 2
        return (ops.batch_matmul if is_alike else ops.broadcasting_batch_matmul)(x, right)

    def reduce(self, op: str, x: Value, axes: Sequence[int], *, keepdims: bool) -> Value:
        name = _NAMES.get(op, op.replace("Reduce", "reduce_").lower())
        found = getattr(ops, name)(x, values.int32s(axes))
        return found if keepdims else ops.shrink_dims(found, values.int32s(axes))

    def arg(self, op: str, x: Value, axis: int, *, keepdims: bool) -> Value:
        if op == "ArgMin":
            # The index of the smallest x is that of the largest -x. For integers use -1 - x, since the lowest integer
            # cannot be negated.
            x = unary.negative(x) if self.is_float(x) else self.sub(-1, x)
        found = cast(ops.argmax(x, values.int32(axis)), np.int32)
        return found if keepdims else ops.shrink_dims(found, values.int32s([axis]))

    def cumsum(self, x: Value, axis: int) -> Value:
        return ops.scan(x, values.constant(np.uint32(axis)), values.constant(np.bool_(False)), "sum")

    def sizes(self, x: Value, start: int, end: int) -> Value:
        whole = values.sizes_of(x)
        return whole if end - start == values.rank_of(x) else cut(whole, 0, start, end)

    def reshape(self, x: Value, dims: Sequence[Dim]) -> Value:
        return shaped(x, dims)

    def expand(self, x: Value, dims: Sequence[Dim]) -> Value:
        return spread(x, dims)

    def tile(self, x: Value, reps: Any) -> Value:
        if not isinstance(reps, list):
            return repeated(x, elements(reps))
        numbers = cast_type("list[int]", reps)
        return ops.tile(x, values.sizes(numbers)) if any(each != 1 for each in numbers) else x

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        return values.transpose(x, permutation)

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        return expand(x, axes)

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        return squeeze(x, axes)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return concat(with_known_sizes(values, axis), axis)

    def slice(self, x: Value, axis: int, start: Dim, end: Dim) -> Value:
        return cut(x, axis, start, end)

    def split(self, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        return list(ops.split(x, values.sizes(sizes), values.int32(axis)))

    def take(self, x: Value, index: Dim, axis: int = 0) -> Value:
        if axis == 0:
            return row(x, index)
        # Declare that the slice from `index` to `index + 1` has one element: Core AI does not infer it if `index` is
        # computed.
        end = index + 1 if isinstance(index, int) else self.add(index, 1)
        sizes = [1 if each == axis else size for each, size in enumerate(shape_of(x))]
        return squeeze(retyped(cut(x, axis, index, end), sizes), [axis])

    def with_row(self, x: Value, row: Value, index: Value) -> Value:
        return loops.with_row(x, row, index)

    def from_front(self, indices: Value, size: Dim) -> Value:
        return from_front(indices, size)

    def gather_elements(self, x: Value, indices: Value, axis: int) -> Value:
        return ops.gather_along_axis(x, indices, values.int32(axis))

    def gather_nd(self, x: Value, indices: Value) -> Value:
        return ops.gather_nd(x, indices)

    def reverse(self, x: Value, axis: int) -> Value:
        return ops.reverse(x, values.int32s([axis]))

    def reverse_sequence(self, x: Value, lengths: Value, time: int, batch: int) -> Value:
        return reverse_sequence(x, lengths, time, batch)

    def top_k(self, x: Value, count: Dim, axis: int, *, is_largest: bool) -> tuple[Value, Value]:
        place, is_true = values.int32(axis), values.constant(np.bool_(True))
        # The sort is stable: equal elements keep their order, as in ONNX's TopK.
        order = ops.argsort(x, place, values.constant(np.bool_(is_largest)), is_true)
        is_all = isinstance(count, int) and count == shape_of(x)[axis]
        indices = order if is_all else cut(order, axis, 0, count)
        return ops.gather_along_axis(x, indices, place), indices

    def nonzero_indices(self, x: Value) -> Value:
        return ops.non_zero(x)

    def loop(self, limit: Dim, starts: Sequence[Value], step: Callable[..., Sequence[Value]]) -> list[Value]:
        end = as_scalar(limit)

        def go_on(number: Value, *_values: Value) -> Value:
            return ops.greater(end, number)

        return loops.loop(starts, go_on, step)[1:]


BUILDER: Final = CoreAIBuilder()
