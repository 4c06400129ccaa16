"""Types and shapes of a program's values, and short functions that write constants, casts and reshapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InternalError
from triune.coreai.library import Value, dialect, ir, ops

_DTYPES: Mapping[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "i1": np.bool_,
    **{f"si{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"ui{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "si4": ml_dtypes.int4,
    "ui4": ml_dtypes.uint4,
}
"""The numpy dtypes by MLIR's names of element types."""

_HALVES = (np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4))


def dtype_of(x: Value) -> np.dtype[Any]:
    """The numpy dtype of a value."""
    word = str(x.type.element_type)
    if word not in _DTYPES:
        raise InternalError(f"a value of element type {word}, which no core op has")
    return np.dtype(_DTYPES[word])


def shape_of(x: Value) -> tuple[int | None, ...]:
    """The shape of a value; None for a size that is not known."""
    return tuple(None if ir.ShapedType.is_dynamic_size(dim) else int(dim) for dim in x.type.shape)


def rank_of(x: Value) -> int:
    """The number of dimensions of a value."""
    return int(x.type.rank)


def is_float(x: Value) -> bool:
    """Whether a value is fp16 or fp32."""
    return dtype_of(x).kind == "f"


def is_number(x: Value) -> bool:
    """Whether the elements of a value have a dtype in numpy: it is neither complex nor an image."""
    return ir.RankedTensorType.isinstance(x.type) and str(x.type.element_type) in _DTYPES


def is_bool(x: Value) -> bool:
    """Whether a value is bool."""
    return dtype_of(x) == np.bool_


def constant(array: Any) -> Value:
    """Write a numpy array or scalar as a constant of the same dtype."""
    array = np.asarray(array)
    if array.dtype in _HALVES:
        return small_constant(array, 4, is_signed=array.dtype == _HALVES[0])
    return ops.constant(array)


def small_constant(numbers: NDArray[Any], bits: int, *, is_signed: bool = False) -> Value:
    """Write integers of 1, 2 or 4 bits as a constant: packed into bytes, the first in the lowest bits."""
    low = numbers.reshape(-1).astype(np.uint8) & ((1 << bits) - 1)
    packed = np.packbits((low[:, None] >> np.arange(bits, dtype=np.uint8)) & 1, bitorder="little")
    integer = ir.IntegerType
    element = integer.get_signed(bits) if is_signed else integer.get_unsigned(bits)
    kind = ir.RankedTensorType.get(list(numbers.shape), element)
    attribute = ir.DenseResourceElementsAttr.get_from_buffer(packed, "dense_resource", kind)
    return dialect.ConstantOp(attribute).result


def like(x: Value, value: Any) -> Value:
    """Write a number as a constant scalar, in the element type of `x`."""
    return constant(np.asarray(value).astype(dtype_of(x)))


def full_like(x: Value, value: Any) -> Value:
    """Write a constant of the element type and shape of `x`, filled with `value`."""
    return ops.broadcast_to(like(x, value), sizes_of(x, np.uint32))


def int32s(numbers: Sequence[int]) -> Value:
    """Write a constant int32 vector, the form in which most operations take axes and sizes."""
    return constant(np.array(numbers, np.int32))


def int32(number: int) -> Value:
    """Write a constant int32 scalar, the form in which operations take a single axis."""
    return constant(np.int32(number))


def sizes(numbers: Sequence[int]) -> Value:
    """Write a constant uint32 vector, for operations that require unsigned sizes."""
    return constant(np.array(numbers, np.uint32))


def sizes_of(x: Value, dtype: Any = np.int32) -> Value:
    """The shape of `x` as a vector; a constant if all sizes are known."""
    shape = shape_of(x)
    if None not in shape:
        return constant(np.array(shape, dtype))
    return cast(ops.get_shape(x), dtype)


def size_of(x: Value, axis: int) -> Value:
    """The size of dimension `axis` of `x`, computed as a scalar of int32."""
    size = shape_of(x)[axis]
    if size is not None:
        return constant(np.int32(size))
    return cast(ops.gather_nd(ops.get_shape(x), int32s([axis])), np.int32)


def cast(x: Value, dtype: Any) -> Value:
    """Convert `x` to a dtype; return `x` itself if it has that dtype."""
    return x if dtype_of(x) == np.dtype(dtype) else ops.cast(x, np.dtype(dtype).type)


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """Reshape `x` to a known shape, in which one size may be -1."""
    if shape_of(x) == tuple(shape):
        return x
    if None not in shape_of(x) or -1 not in shape:
        return ops.reshape(x, int32s(shape))
    return reshape_to(x, int32s(shape), [None if size == -1 else size for size in shape])


def reshape_to(x: Value, target: Value, shape: Sequence[int | None]) -> Value:
    """Reshape `x` to the shape `target`, which is known only at run time; `shape` has the sizes that are known.

    The reshape is done in two steps, through a shape with one more dimension. Otherwise, if the results of two such
    reshapes are added, Core AI (1.0.0b3) adds first and reshapes once, which is wrong if they broadcast.
    """
    if None not in shape:
        return dialect.ReshapeOp(x, target, results=[tensor_type(shape, dtype_of(x))]).result
    wide = ops.concat(int32(0), [int32s([1]), target])
    found = dialect.ReshapeOp(x, wide, results=[tensor_type([1, *shape], dtype_of(x))]).result
    return ops.shrink_dims(found, int32s([0]))


def transpose(x: Value, permutation: Sequence[int]) -> Value:
    """Permute the dimensions of `x`: dimension i of the result is dimension permutation[i] of `x`."""
    return x if list(permutation) == list(range(rank_of(x))) else ops.transpose(x, sizes(permutation))


def concat(values: Sequence[Value], axis: int) -> Value:
    """Concatenate values along dimension `axis`."""
    return values[0] if len(values) == 1 else ops.concat(int32(axis), list(values))


def is_known_type(dtype: Any) -> bool:
    """Whether Core AI has tensors of a dtype."""
    return np.dtype(dtype) in map(np.dtype, _DTYPES.values())


def tensor_type(shape: Sequence[int | None], dtype: Any) -> Any:
    """The type of a tensor. In `shape`, None is a size that is not known."""
    words = {np.dtype(kind): word for word, kind in _DTYPES.items()}
    word = words[np.dtype(dtype)]
    element = ir.Type.parse(word)
    dynamic = ir.ShapedType.get_dynamic_size()
    return ir.RankedTensorType.get([dynamic if dim is None else dim for dim in shape], element)


def known_shape(x: Value) -> list[int] | None:
    """The shape of a value; None if a size is not known."""
    shape = shape_of(x)
    return None if None in shape else [dim for dim in shape if dim is not None]


def as_dtype(array: NDArray[Any], x: Value) -> NDArray[Any]:
    """Convert a numpy array to the dtype of `x`."""
    return array.astype(dtype_of(x))
