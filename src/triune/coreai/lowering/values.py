"""What is known of the values of a program while it is written, and small values to write it with."""

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
    """Numpy's dtype of a value."""
    word = str(x.type.element_type)
    if word not in _DTYPES:
        raise InternalError(f"a value of element type {word}, which no core op has")
    return np.dtype(_DTYPES[word])


def shape_of(x: Value) -> tuple[int | None, ...]:
    """The shape; None for a dimension that is not known."""
    return tuple(None if ir.ShapedType.is_dynamic_size(dim) else int(dim) for dim in x.type.shape)


def rank_of(x: Value) -> int:
    """The number of dimensions."""
    return int(x.type.rank)


def is_float(x: Value) -> bool:
    """Is it fp16 or fp32?"""
    return dtype_of(x).kind == "f"


def is_number(x: Value) -> bool:
    """Is it of a type that numpy has: neither complex nor an image?"""
    return ir.RankedTensorType.isinstance(x.type) and str(x.type.element_type) in _DTYPES


def is_bool(x: Value) -> bool:
    """Is it of truth values?"""
    return dtype_of(x) == np.bool_


def constant(array: Any) -> Value:
    """A constant of numpy's array or scalar, in its own dtype."""
    array = np.asarray(array)
    if array.dtype in _HALVES:
        return small_constant(array, 4, is_signed=array.dtype == _HALVES[0])
    return ops.constant(array)


def small_constant(numbers: NDArray[Any], bits: int, *, is_signed: bool = False) -> Value:
    """Whole numbers of 1, 2 or 4 bits, packed into bytes: the first ones in the lowest bits."""
    low = numbers.reshape(-1).astype(np.uint8) & ((1 << bits) - 1)
    packed = np.packbits((low[:, None] >> np.arange(bits, dtype=np.uint8)) & 1, bitorder="little")
    integer = ir.IntegerType
    element = integer.get_signed(bits) if is_signed else integer.get_unsigned(bits)
    kind = ir.RankedTensorType.get(list(numbers.shape), element)
    attribute = ir.DenseResourceElementsAttr.get_from_buffer(packed, "dense_resource", kind)
    return dialect.ConstantOp(attribute).result


def like(x: Value, value: Any) -> Value:
    """A scalar of the element type of `x`."""
    return constant(np.asarray(value).astype(dtype_of(x)))


def full_like(x: Value, value: Any) -> Value:
    """As `like`, of the shape of `x`."""
    return ops.broadcast_to(like(x, value), sizes_of(x, np.uint32))


def axes(numbers: Sequence[int]) -> Value:
    """A vector of places or signed sizes, as most operations take it."""
    return constant(np.array(numbers, np.int32))


def axis(number: int) -> Value:
    """A place, as operations on one axis take it."""
    return constant(np.int32(number))


def sizes(numbers: Sequence[int]) -> Value:
    """A vector of uint32 sizes, for operations that require unsigned ones."""
    return constant(np.array(numbers, np.uint32))


def sizes_of(x: Value, dtype: Any = np.int32) -> Value:
    """The shape as a vector: a constant where all of it is known."""
    shape = shape_of(x)
    if None not in shape:
        return constant(np.array(shape, dtype))
    return cast(ops.get_shape(x), dtype)


def size_of(x: Value, place: int) -> Value:
    """One dimension as a scalar of int32."""
    size = shape_of(x)[place]
    if size is not None:
        return constant(np.int32(size))
    return cast(ops.gather_nd(ops.get_shape(x), axes([place])), np.int32)


def cast(x: Value, dtype: Any) -> Value:
    """`x` in another element type; itself where it is of that."""
    return x if dtype_of(x) == np.dtype(dtype) else ops.cast(x, np.dtype(dtype).type)


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """`x` of a shape that is known but for one -1."""
    if shape_of(x) == tuple(shape):
        return x
    if None not in shape_of(x) or -1 not in shape:
        return ops.reshape(x, axes(shape))
    return reshape_to(x, axes(shape), [None if size == -1 else size for size in shape])


def reshape_to(x: Value, target: Value, shape: Sequence[int | None]) -> Value:
    """`x` of a shape that is computed, of which `shape` is known.

    By way of one dimension more: of two reshapes to unknown shapes whose results are combined, Core AI (1.0.0b3) makes
    one after the combination, which gives the wrong shape where the first two broadcast.
    """
    if None not in shape:
        return dialect.ReshapeOp(x, target, results=[tensor_type(shape, dtype_of(x))]).result
    wide = ops.concat(axis(0), [axes([1]), target])
    found = dialect.ReshapeOp(x, wide, results=[tensor_type([1, *shape], dtype_of(x))]).result
    return ops.shrink_dims(found, axes([0]))


def transpose(x: Value, permutation: Sequence[int]) -> Value:
    """The dimensions in another order."""
    return x if list(permutation) == list(range(rank_of(x))) else ops.transpose(x, sizes(permutation))


def concat(values: Sequence[Value], place: int) -> Value:
    """Values one after the other along a dimension."""
    return values[0] if len(values) == 1 else ops.concat(axis(place), list(values))


def is_known_type(dtype: Any) -> bool:
    """Are there tensors of such elements in programs?"""
    return np.dtype(dtype) in map(np.dtype, _DTYPES.values())


def tensor_type(shape: Sequence[int | None], dtype: Any) -> Any:
    """The type of a tensor; None for a dimension that is not known."""
    words = {np.dtype(kind): word for word, kind in _DTYPES.items()}
    word = words[np.dtype(dtype)]
    element = ir.Type.parse(word)
    dynamic = ir.ShapedType.get_dynamic_size()
    return ir.RankedTensorType.get([dynamic if dim is None else dim for dim in shape], element)


def known_shape(x: Value) -> list[int] | None:
    """The shape where all of it is known."""
    shape = shape_of(x)
    return None if None in shape else [dim for dim in shape if dim is not None]


def as_dtype(array: NDArray[Any], x: Value) -> NDArray[Any]:
    """`array` in the dtype of `x`."""
    return array.astype(dtype_of(x))
