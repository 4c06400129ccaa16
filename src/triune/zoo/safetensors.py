"""Read the safetensors format with numpy alone.

Format: an unsigned 64-bit little-endian length, a JSON header of that length that maps names to {"dtype", "shape",
"data_offsets": [begin, end]}, then the tensors' bytes; offsets count from the header's end.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

import ml_dtypes
import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError

_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Read the tensors of a safetensors file by name. The arrays are read-only views of `content`.

    Raises:
        InvalidArgumentError: the file is truncated, its header is invalid, or tensors overlap or leave gaps.
    """
    if len(content) < 8:
        raise InvalidArgumentError(f"safetensors: {len(content)} bytes are fewer than the 8 of the header's length")
    header_bytes = int.from_bytes(content[:8], "little")
    if header_bytes > min(_MAX_HEADER_BYTES, len(content) - 8):
        raise InvalidArgumentError(
            f"safetensors: the header claims {header_bytes} bytes; {len(content) - 8} follow, "
            f"and the format allows {_MAX_HEADER_BYTES}"
        )
    try:
        header = cast(object, json.loads(content[8 : 8 + header_bytes], object_pairs_hook=_without_duplicates))
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"safetensors: the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise InvalidArgumentError(f"safetensors: the header is a {type(header).__name__}, not a JSON object")
    data = memoryview(content)[8 + header_bytes :]
    tensors: dict[str, Array] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in cast("dict[str, object]", header).items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _read_entry(name, entry, len(data))
        spans.append((begin, end, name))
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
    _check_spans(spans, len(data))
    return tensors


def _read_entry(name: str, entry: object, data_bytes: int) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    dtype_name, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if len(fields) != 3 or not (isinstance(dtype_name, str) and isinstance(shape, list) and isinstance(span, list)):
        raise InvalidArgumentError(
            f"safetensors: tensor {name!r} needs exactly dtype, shape and data_offsets; it has {entry!r}"
        )
    numbers = [*cast("list[object]", shape), *cast("list[object]", span)]
    if len(numbers) != len(cast("list[object]", shape)) + 2 or not all(type(n) is int and n >= 0 for n in numbers):
        raise InvalidArgumentError(
            f"safetensors: tensor {name!r} has shape {shape} and data_offsets {span}; expected counts, and two offsets"
        )
    *sizes, begin_byte, end_byte = cast("list[int]", numbers)
    if dtype_name not in _DTYPES:
        raise InvalidArgumentError(
            f"safetensors: tensor {name!r} has dtype {dtype_name!r}; known are {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[dtype_name]
    if len(sizes) > 32:
        raise InvalidArgumentError(f"safetensors: tensor {name!r} has {len(sizes)} dimensions; at most 32 are read")
    if not begin_byte <= end_byte <= data_bytes:
        raise InvalidArgumentError(
            f"safetensors: tensor {name!r} lies at {begin_byte} to {end_byte} of {data_bytes} data bytes"
        )
    if math.prod(sizes) * dtype.itemsize != end_byte - begin_byte:
        raise InvalidArgumentError(
            f"safetensors: tensor {name!r}, {dtype_name}{sizes}, needs {math.prod(sizes) * dtype.itemsize} bytes; "
            f"its offsets give {end_byte - begin_byte}"
        )
    return dtype, tuple(sizes), begin_byte, end_byte


def _check_spans(spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Check that the tensors cover the data without overlaps or gaps, as the format demands."""
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise InvalidArgumentError(f"safetensors: tensor {name!r} starts at {begin}, not {position}: it {what}")
        position = end
    if position != data_bytes:
        raise InvalidArgumentError(f"safetensors: {data_bytes - position} bytes belong to no tensor")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name is given twice")
    return result
