"""The tensor datatypes of the KServe protocol, each with one numpy dtype.

BF16 is `ml_dtypes.bfloat16`. BYTES is a numpy object array whose elements are `bytes`. Source: the KServe open
inference protocol's tensor data types, and Triton's binary tensor data extension.
"""

from enum import Enum
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from triune.core.errors import InvalidArgumentError

Array: TypeAlias = NDArray[Any]

CHUNK_ELEMENTS: Final = 8192
"""The number of elements that a thread converts to or from Python objects before it releases the GIL. Converting more
of them in one numpy call would block other threads for over a millisecond."""

_NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(np.object_),
}


class DataType(Enum):
    """A tensor's element type. The value is its name in the protocol.

    Attributes:
        dtype: the numpy dtype that represents it.
        itemsize: the number of bytes of an element in requests; 0 for BYTES, whose elements differ in length.
    """

    dtype: np.dtype[Any]
    itemsize: int

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    def __init__(self, name: str) -> None:
        self.dtype = _NUMPY_DTYPES[name]
        self.itemsize = 0 if name == "BYTES" else self.dtype.itemsize

    @classmethod
    def of(cls, array: Array) -> "DataType":
        """The datatype of `array`.

        Raises:
            InvalidArgumentError: no KServe datatype has this numpy dtype.
        """
        try:
            return _BY_DTYPE[array.dtype]
        except KeyError:
            raise InvalidArgumentError(
                f"no KServe datatype holds numpy dtype {array.dtype}; use one of {', '.join(_NUMPY_DTYPES)}"
            ) from None

    @classmethod
    def parse(cls, name: str) -> "DataType":
        """The datatype with the protocol's name `name`, such as "FP32".

        Raises:
            InvalidArgumentError: there is no such datatype.
        """
        try:
            return cls(name)
        except ValueError:
            raise InvalidArgumentError(
                f"unknown datatype {name!r}; expected one of {', '.join(_NUMPY_DTYPES)}"
            ) from None


_BY_DTYPE = {member.dtype: member for member in DataType}
