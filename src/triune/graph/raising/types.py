"""Types of the tensors in Apple's programs."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


class DType(Enum):
    """Element types; the value is MIL's name in lower case."""

    BOOL = "bool"
    STRING = "string"
    FP16 = "fp16"
    FP32 = "fp32"
    FP64 = "fp64"
    BF16 = "bf16"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    INT4 = "int4"
    UINT1 = "uint1"
    UINT2 = "uint2"
    UINT3 = "uint3"
    UINT4 = "uint4"
    UINT6 = "uint6"

    @property
    def bits(self) -> int:
        """The bits of an element in a file: 4 for int4, 8 for bool; 0 for strings, which have no fixed size."""
        return _BITS.get(self, 0 if self is DType.STRING else 8 * self.numpy.itemsize)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype for arrays of this type; elements of fewer than 8 bits take a byte each (int8, uint8)."""
        return _NUMPY[self]


_BITS = {DType.INT4: 4, DType.UINT1: 1, DType.UINT2: 2, DType.UINT3: 3, DType.UINT4: 4, DType.UINT6: 6}
_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.STRING: np.dtype(np.object_),
    DType.FP16: np.dtype(np.float16),
    DType.FP32: np.dtype(np.float32),
    DType.FP64: np.dtype(np.float64),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.INT8: np.dtype(np.int8),
    DType.INT16: np.dtype(np.int16),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.UINT8: np.dtype(np.uint8),
    DType.UINT16: np.dtype(np.uint16),
    DType.UINT32: np.dtype(np.uint32),
    DType.UINT64: np.dtype(np.uint64),
    DType.INT4: np.dtype(np.int8),
    DType.UINT1: np.dtype(np.uint8),
    DType.UINT2: np.dtype(np.uint8),
    DType.UINT3: np.dtype(np.uint8),
    DType.UINT4: np.dtype(np.uint8),
    DType.UINT6: np.dtype(np.uint8),
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """The element type and the shape of a tensor. A size of None is known only at run time.

    A shape of None means that the rank is not known, either.
    """

    dtype: DType
    shape: tuple[int | None, ...] | None
