"""Tensors of a ModelInferRequest: raw bytes outside the inputs, or typed `contents` within each input."""

from collections.abc import Iterable
from typing import cast

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import format_shape
from triune.frontends.kserve.tensors import num_elements, object_array
from triune.protos.grpc_service_pb2 import InferTensorContents

# The field of InferTensorContents for each datatype. FP16 and BF16 have none: they are sent raw only.
_FIELDS = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}

# Datatypes narrower than the field that carries them, and that field's element type.
_WIDE = {
    DataType.INT8: np.int32,
    DataType.INT16: np.int32,
    DataType.UINT8: np.uint32,
    DataType.UINT16: np.uint32,
}


def decode_contents(name: str, datatype: DataType, shape: tuple[int, ...], contents: InferTensorContents) -> Array:
    """Decode an input's typed contents to an array.

    Args:
        name: the input's name, for error messages.
        datatype: its element type.
        shape: its shape.
        contents: the elements, in the field that belongs to the datatype.

    Raises:
        InvalidArgumentError: the datatype is FP16 or BF16, the elements are in another datatype's field, their number
            does not match the shape, or a number is out of the datatype's range.
    """
    expected = _FIELDS.get(datatype)
    if expected is None:
        raise InvalidArgumentError(
            f"input '{name}' is {datatype.value}, which has no typed contents; send it in raw_input_contents"
        )
    for field, _ in contents.ListFields():
        if field.name != expected:
            raise InvalidArgumentError(
                f"input '{name}' is {datatype.value} but its contents are in {field.name}; put them in {expected}"
            )
    elements = cast(Iterable[int | float | bytes], getattr(contents, expected))
    came = len(getattr(contents, expected))
    count = num_elements(name, shape)
    if came != count:
        raise InvalidArgumentError(
            f"input '{name}' of {datatype.value}{format_shape(shape)} has {count} elements, "
            f"but {came} came in {expected}"
        )
    if datatype is DataType.BYTES:
        return object_array(list(cast(Iterable[bytes], elements)), shape)
    wide = _WIDE.get(datatype)
    if wide is None:
        return np.fromiter(elements, datatype.dtype, count).reshape(shape)
    return _narrow(name, datatype, np.fromiter(elements, wide, count)).reshape(shape)


def _narrow(name: str, datatype: DataType, array: Array) -> Array:
    limits = np.iinfo(datatype.dtype)
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            wrong = low if low < limits.min else high
            raise InvalidArgumentError(
                f"input '{name}' of {datatype.value} holds {wrong}; "
                f"its elements must be between {limits.min} and {limits.max}"
            )
    return array.astype(datatype.dtype)
