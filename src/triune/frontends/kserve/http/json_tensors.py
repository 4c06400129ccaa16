"""Decodes and encodes tensors as JSON arrays.

FP16 and BF16 have no JSON form (Triton refuses them too). As with Triton and its clients, numbers that are not finite
are written as NaN, Infinity and -Infinity.
"""

import json
import math
from itertools import chain
from typing import Any, cast

import numpy as np
import orjson

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import format_shape
from triune.frontends.bodies.json_values import json_name
from triune.frontends.kserve.tensors import num_elements, object_array

_NUMBERS: frozenset[type] = frozenset({int, float})

# For each datatype, the Python types of elements that it accepts, and the name of these types in error messages.
_ELEMENT_TYPES: dict[DataType, tuple[frozenset[type], str]] = {
    DataType.BOOL: (frozenset({bool}), "true and false"),
    DataType.FP32: (_NUMBERS, "numbers"),
    DataType.FP64: (_NUMBERS, "numbers"),
    DataType.BYTES: (frozenset({str}), "strings"),
    **{each: (frozenset({int}), "integers of at most 64 bits") for each in DataType if each.dtype.kind in "iu"},
}

# The names of types in Triton's error messages.
_TRITON_TYPES = {"b": "boolean", "f": "number", "O": "string", "i": "signed-integer", "u": "unsigned-integer"}

_BYTES, _FP32 = DataType.BYTES, DataType.FP32

# Triton's limit for nesting. Arrays may be nested deeper than the shape has dimensions, as if by dimensions of 1.
_MAX_DEPTH = 100

# Triton's messages for data that do not fit the shape.
_TOO_FEW = "Failed to parse 'data' field: shape does not match true shape"
_TOO_MANY = "Unable to parse 'data': Shape does not match true shape of 'data' field"

# From this number on, rounding to FP32 gives infinity: half a unit in the last place beyond the largest FP32 number.
_FP32_INFINITY = 2.0**128 - 2.0**103


def decode_json(name: str, datatype: DataType, shape: tuple[int, ...], data: object) -> Array:
    """Decode a JSON array, flat or nested by the shape (dimensions of 1 may be left out).

    Args:
        name: the tensor's name, for error messages.
        datatype: its element type.
        shape: its shape.
        data: the parsed JSON.

    Raises:
        InvalidArgumentError: the data does not match the shape or the datatype.
    """
    count = num_elements(name, shape)
    if type(data) is not list:
        raise InvalidArgumentError(f"'data' of tensor '{name}' must be an array, not {json_name(data)}")
    known = _ELEMENT_TYPES.get(datatype)
    if known is None:
        raise InvalidArgumentError(
            f"tensor '{name}': {datatype.value} has no JSON form; send it as binary data with 'binary_data_size'"
        )
    elements = _flatten(name, shape, count, cast("list[Any]", data))
    allowed, wanted = known
    if not allowed.issuperset(map(type, elements)):
        stranger = next(each for each in elements if type(each) not in allowed)
        triton_type = _TRITON_TYPES[datatype.dtype.kind]
        raise InvalidArgumentError(
            f"attempt to access JSON non-{triton_type} as {triton_type}: tensor '{name}' of {datatype.value} takes "
            f"{wanted}, but holds {json_name(stranger)}"
        )
    if datatype is _BYTES:
        return object_array([each.encode() for each in elements], shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(elements, datatype.dtype)
    except OverflowError:
        limits = np.iinfo(datatype.dtype)
        raise InvalidArgumentError(
            f"tensor '{name}' of {datatype.value} holds a number outside {limits.min} to {limits.max}"
        ) from None
    if datatype is _FP32 and np.isinf(array).any() and any(map(_is_beyond_fp32, elements)):
        raise InvalidArgumentError(f"tensor '{name}' of FP32 holds a number beyond 3.4028235e+38")
    return array if len(shape) == 1 else array.reshape(shape)


def _is_beyond_fp32(number: int | float) -> bool:
    return _FP32_INFINITY <= abs(number) < math.inf


def _flatten(name: str, shape: tuple[int, ...], count: int, data: list[Any]) -> list[Any]:
    level = data
    dims = [len(level)]
    while level and _row_length(level[0]) >= 0:
        if len(dims) == _MAX_DEPTH:
            raise InvalidArgumentError(
                f"JSON nesting depth exceeds maximum allowed limit ({_MAX_DEPTH}) in 'data' of tensor '{name}'"
            )
        lengths = set(map(_row_length, level))
        if len(lengths) > 1:
            raise InvalidArgumentError(f"'data' of tensor '{name}' is ragged at depth {len(dims)}; fill every row")
        dims += lengths
        level = list(chain.from_iterable(cast("list[list[Any]]", level)))
    if len(level) != count:
        words = _TOO_FEW if len(level) < count else _TOO_MANY
        raise InvalidArgumentError(
            f"{words}: tensor '{name}' of shape {format_shape(shape)} has {count} elements, "
            f"but 'data' holds {len(level)}"
        )
    if len(dims) > 1 and count and [each for each in dims if each != 1] != [each for each in shape if each != 1]:
        raise InvalidArgumentError(
            f"'data' of tensor '{name}' is nested as {format_shape(dims)}, but its shape is {format_shape(shape)}; "
            "nest it as the shape says, or not at all"
        )
    return level


def _row_length(value: object) -> int:
    return len(cast("list[object]", value)) if type(value) is list else -1


def encode_json(name: str, array: Array) -> bytes:
    """Encode a tensor as a flat JSON array in row-major order.

    Raises:
        InvalidArgumentError: the datatype is FP16 or BF16, or a BYTES element is not UTF-8: JSON cannot express these.
    """
    datatype = DataType.of(array)
    if datatype not in _ELEMENT_TYPES:
        raise InvalidArgumentError(
            f"output '{name}': {datatype.value} has no JSON form; ask for it with 'binary_data': true"
        )
    flags = array.flags
    flat = array.ravel() if flags.c_contiguous and flags.aligned else array.flatten()
    if datatype is _BYTES:
        try:
            return orjson.dumps([cast(bytes, each).decode() for each in flat.tolist()])
        except UnicodeDecodeError:
            raise InvalidArgumentError(
                f"output '{name}' holds bytes that are not UTF-8 and so have no JSON form; "
                "ask for it with 'binary_data': true"
            ) from None
    text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    if flat.dtype.kind == "f" and b"null" in text:
        return json.dumps(flat.tolist(), separators=(",", ":")).encode()
    return text
