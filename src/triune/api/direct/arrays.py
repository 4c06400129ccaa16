"""The arrays that direct work accepts, and error messages for others."""

from typing import Any, Final, cast

import ml_dtypes
import numpy as np
from onnx import TensorProto

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnavailableError
from triune.core.tensors import format_shape
from triune.hardware.memory import usable_memory

NAMES: Final = {
    np.dtype(np.float32): "fp32",
    np.dtype(np.float16): "fp16",
    np.dtype(ml_dtypes.bfloat16): "bf16",
    np.dtype(np.int8): "int8",
}
"""The names of the dtypes that direct products accept."""

ELEMENTS: Final = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
}
"""The ONNX element type of each dtype in `NAMES`, by the dtype's name there."""

EXACT_TERMS: Final = 1024
"""The number of products of 8-bit integers whose sum fp32 always represents exactly: 1024 x 128 x 128 is 2^24."""

MOST_TERMS: Final = 131_071
"""The largest number of products of 8-bit integers whose sum always fits into int32."""

_CHECKED_BYTES: Final = 256 << 20
"""A product whose result takes at least this many bytes is refused if it does not fit into the available memory."""


def array_of(value: Any, name: str) -> Array:
    """Convert an argument to an array without a copy. It may be a numpy array, or an object that shares its memory
    through DLPack.

    Raises:
        InvalidArgumentError: the argument is neither, or its elements have an unsupported type.
    """
    array: Array
    if isinstance(value, np.ndarray):
        array = cast("Array", value)
    elif hasattr(value, "__dlpack__"):
        try:
            array = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"'{name}' cannot be read by DLPack: {error}; copy it to the CPU's memory, or pass a numpy array"
            ) from error
    else:
        raise InvalidArgumentError(
            f"'{name}' is {type(value).__name__}; pass a numpy array, or an array that can be read by DLPack"
        )
    if array.dtype not in NAMES:
        raise InvalidArgumentError(
            f"'{name}' has elements of type {array.dtype}; direct work takes float32, float16, bfloat16 (of ml_dtypes) "
            "and int8: convert it"
        )
    return array


def dtype_name(first: Array, second: Array, names: tuple[str, str]) -> str:
    """The name of the common dtype of two arrays. Raises InvalidArgumentError if their dtypes differ."""
    if first.dtype != second.dtype:
        raise InvalidArgumentError(
            f"'{names[0]}' is {first.dtype} and '{names[1]}' is {second.dtype}; convert one, so that both are the same"
        )
    return NAMES[first.dtype]


def require_memory(shape: tuple[int, ...], itemsize: int) -> None:
    """Raise UnavailableError if a result of this shape does not fit into the available memory."""
    num_bytes = itemsize
    for size in shape:
        num_bytes *= size
    if num_bytes >= _CHECKED_BYTES and num_bytes > (available := usable_memory().available):
        raise UnavailableError(
            f"the result of shape {format_shape(shape)} takes {num_bytes} bytes, and {available} are left; compute it "
            "in parts"
        )
