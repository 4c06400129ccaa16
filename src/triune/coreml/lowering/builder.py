# ruff: noqa: D102 - `Builder` says what each method writes.
"""The primitives of `Builder` in MIL, written with coremltools' builder."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triune.coreml.lowering import binary, unary
from triune.coreml.lowering.broadcast import as_vector, broadcast_to, broadcast_with, logical, sizes_of
from triune.coreml.lowering.context import dtype_of, has_static_shape, is_bool, is_float, like
from triune.coreml.lowering.mb import Var, is_fixed, mb
from triune.graph.conversion.lowering.builder import Builder
from triune.graph.conversion.problems import Refusal

_OPS: dict[str, Callable[..., Var]] = {**unary.OPS, **binary.OPS}
_NAMES = {
    "Not": "logical_not",
    "Max": "maximum",
    "Min": "minimum",
    "GreaterOrEqual": "greater_equal",
    "LessOrEqual": "less_equal",
}
"""MIL's name for each ONNX operator whose name in MIL is not the ONNX name in lower case."""

_WORDS = {"float16": "fp16", "float32": "fp32", "int32": "int32"}


class MilBuilder(Builder[Var]):
    """Writes operations to the MIL block that is currently open."""

    runtime = "Core ML"

    def dtype(self, x: Var) -> np.dtype[Any]:
        return dtype_of(x)

    def shape(self, x: Var) -> tuple[int | None, ...]:
        return tuple(int(dim) if is_fixed(dim) else None for dim in x.shape)

    def dim(self, x: Var, axis: int) -> Any:
        return sizes_of(x)[axis]

    def dims(self, x: Var) -> list[Any]:
        return sizes_of(x)

    def constant(self, array: NDArray[Any] | np.generic) -> Var:
        return mb.const(val=array)

    def full(self, dims: Sequence[Any], number: float, dtype: Any) -> Var:
        return mb.fill(shape=as_vector(dims), value=np.dtype(dtype).type(number))

    def iota(self, count: Any) -> Var:
        if isinstance(count, int):
            return mb.const(val=np.arange(count, dtype=np.int32))
        return mb.range_1d(start=np.int32(0), end=count, step=np.int32(1))

    def elementwise(self, op: str, *operands: Var, **attributes: Any) -> Var:
        if op in _OPS:
            return _OPS[op](*operands, **attributes)
        return getattr(mb, _NAMES.get(op, op.lower()))(**dict(zip("xy", operands, strict=False)))

    def alike(self, op: str, *operands: Any) -> Var:
        value = next(each for each in reversed(operands) if not isinstance(each, (int, float)))
        given = [mb.const(val=like(value, x)) if isinstance(x, (int, float)) else x for x in operands]
        return self.elementwise(op, *given)

    def cast(self, x: Var, dtype: Any) -> Var:
        if dtype_of(x) == dtype:
            return x
        return logical(x) if dtype == np.bool_ else mb.cast(x=x, dtype=_WORDS[np.dtype(dtype).name])

    def mod(self, x: Var, y: Any) -> Var:
        return mb.mod(x=x, y=like(x, y) if isinstance(y, (int, float)) else y)

    def clip(self, x: Var, low: Any, high: Any) -> Var:
        if is_float(x) and isinstance(low, (int, float)) and isinstance(high, (int, float)):
            return mb.clip(x=x, alpha=like(x, low), beta=like(x, high))
        return super().clip(x, low, high)

    def inverse_root(self, x: Var) -> Var:
        return mb.real_div(x=like(x, 1), y=mb.sqrt(x=x))

    def matmul(self, x: Var, y: Var, *, is_transposed: bool = False) -> Var:
        return mb.matmul(x=x, y=y, transpose_y=is_transposed)

    def reduce(self, op: str, x: Var, axes: Sequence[int], *, keepdims: bool) -> Var:
        return getattr(mb, op.replace("Reduce", "reduce_").lower())(x=x, axes=list(axes), keep_dims=keepdims)

    def arg(self, op: str, x: Var, axis: int, *, keepdims: bool) -> Var:
        return getattr(mb, f"reduce_{op.lower()}")(x=x, axis=axis, keep_dims=keepdims)

    def cumsum(self, x: Var, axis: int) -> Var:
        return mb.cumsum(x=x, axis=axis)

    def sizes(self, x: Var, start: int, end: int) -> Var:
        found = as_vector(sizes_of(x)[start:end])
        return mb.const(val=found) if isinstance(found, np.ndarray) else found

    def reshape(self, x: Var, dims: Sequence[Any]) -> Var:
        return mb.reshape(x=x, shape=as_vector(dims)) if dims else self.squeeze(x, range(x.rank))

    def expand(self, x: Var, dims: Sequence[Any]) -> Var:
        shape = as_vector(dims)
        if has_static_shape(x) and isinstance(shape, np.ndarray):
            return broadcast_to(x, shape.tolist())
        return broadcast_with(x, mb.const(val=shape) if isinstance(shape, np.ndarray) else shape)

    def tile(self, x: Var, reps: Var | Sequence[int]) -> Var:
        return mb.tile(x=x, reps=reps)

    def transpose(self, x: Var, permutation: Sequence[int]) -> Var:
        return mb.transpose(x=x, perm=list(permutation)) if x.rank > 1 else x

    def unsqueeze(self, x: Var, axes: Sequence[int]) -> Var:
        return mb.expand_dims(x=x, axes=list(axes)) if axes else x

    def squeeze(self, x: Var, axes: Sequence[int]) -> Var:
        if not axes:
            return x
        free = [axis for axis in axes if not is_fixed(x.shape[axis])]
        if not free:
            return mb.squeeze(x=x, axes=list(axes))
        if len(axes) == x.rank:
            raise Refusal(f"dimension {free[0]}, which is squeezed, is not known to be 1; give its size with --shape")
        # If the size turns out not to be 1 at run time, the reshape fails, as Squeeze does in ONNX.
        return mb.reshape(x=x, shape=as_vector([size for axis, size in enumerate(sizes_of(x)) if axis not in axes]))

    def concat(self, values: Sequence[Var], axis: int) -> Var:
        return mb.concat(values=list(values), axis=axis) if len(values) > 1 else values[0]

    def stack(self, values: Sequence[Var], axis: int) -> Var:
        return mb.stack(values=list(values), axis=axis)

    def slice(self, x: Var, axis: int, start: Any, end: Any) -> Var:
        begins: list[Any] = [0] * x.rank
        ends: list[Any] = [0] * x.rank
        begins[axis], ends[axis] = start, end
        masks = [each != axis for each in range(x.rank)]
        return mb.slice_by_index(x=x, begin=as_vector(begins), end=as_vector(ends), begin_mask=masks, end_mask=masks)

    def split(self, x: Var, sizes: Sequence[int], axis: int) -> list[Var]:
        return list(mb.split(x=x, split_sizes=list(sizes), axis=axis)) if len(sizes) > 1 else [x]

    def take(self, x: Var, index: Any, axis: int = 0) -> Var:
        return mb.gather(x=x, indices=_scalar(index), axis=axis)

    def with_row(self, x: Var, row: Var, index: Var) -> Var:
        places, updates = mb.expand_dims(x=index, axes=[0]), mb.expand_dims(x=row, axes=[0])
        return mb.scatter(data=x, indices=places, updates=updates, axis=0, mode="update")

    def from_front(self, indices: Var, size: Any) -> Var:
        return binary.negative_from_end(indices, size)

    def gather_elements(self, x: Var, indices: Var, axis: int) -> Var:
        return mb.gather_along_axis(x=x, indices=indices, axis=axis)

    def gather_nd(self, x: Var, indices: Var) -> Var:
        return mb.gather_nd(x=x, indices=indices)

    def reverse(self, x: Var, axis: int) -> Var:
        return mb.reverse(x=x, axes=[axis])

    def reverse_sequence(self, x: Var, lengths: Var, time: int, batch: int) -> Var:
        return mb.reverse_sequence(x=x, lengths=lengths, seq_axis=time, batch_axis=batch)

    def top_k(self, x: Var, count: Any, axis: int, *, is_largest: bool) -> tuple[Var, Var]:
        if isinstance(count, int):
            return mb.topk(x=x, k=count, axis=axis, ascending=not is_largest)
        # `topk` takes no k that is computed at run time, so sort all elements and take the first k.
        order = mb.argsort(x=x, axis=axis, ascending=not is_largest)
        ends = [np.int32(0)] * x.rank
        ends[axis] = count
        rest = [place != axis for place in range(x.rank)]
        indices = mb.slice_by_index(x=order, begin=[0] * x.rank, end=as_vector(ends), end_mask=rest)
        return mb.gather_along_axis(x=x, indices=indices, axis=axis), indices

    def nonzero_indices(self, x: Var) -> Var:
        return mb.non_zero(x=self.cast(x, np.int32) if is_bool(x) else x)

    def loop(self, limit: Any, starts: Sequence[Var], step: Callable[..., Sequence[Var]]) -> list[Var]:
        def go_on(number: Var, *_values: Var) -> Var:
            return mb.less(x=number, y=_scalar(limit))

        def run(number: Var, *values: Var) -> list[Var]:
            after = step(number, *values)
            return [mb.add(x=number, y=np.int32(1)), *after]

        results = mb.while_loop(_cond=go_on, _body=run, loop_vars=(mb.const(val=np.int32(0)), *starts))
        return list(results[1:])


def _scalar(size: Any) -> Any:
    return np.int32(size) if isinstance(size, int) else size


BUILDER: Final = MilBuilder()
