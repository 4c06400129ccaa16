"""Decodes and encodes tensors as binary data, for HTTP and gRPC.

Elements are in row-major order, little-endian, without padding. A BYTES element is its length as an unsigned 32-bit
little-endian number, followed by its bytes. Source: Triton's binary tensor data extension.
"""

import struct
from collections.abc import Sequence

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InternalError, InvalidArgumentError, PayloadTooLargeError
from triune.core.tensors import format_shape

# The largest product of a shape's dimensions, without those of size 0: numpy counts the bytes of this product in a
# signed 64-bit integer, and an element has at most 8 bytes.
MAX_ELEMENTS = 2**59
MAX_RANK = 64

MAX_TENSORS = 4096
"""The most inputs, named outputs, or parameters of one request. No model has so many."""

MAX_OBJECTS = 1 << 20
"""The largest number of elements of all BYTES inputs of one request: each is an object here, and a string in the
runtime.
"""

# An array of at most this size is encoded as a copy, since making a view costs more.
_COPY_BYTES = 16384

_SLICE = 16384
_JOINED_BYTES = 256 << 10

_LENGTH = struct.Struct("<I")
_BYTES, _BOOL = DataType.BYTES, DataType.BOOL
_DTYPES = {each.dtype for each in DataType}
_MAX_ELEMENT_BYTES = 2**32 - 1
_MAX_INT64 = 2**63 - 1


def check_count(count: int, kind: str) -> None:
    """Raise PayloadTooLargeError if a request has too many "inputs", "outputs" or "parameters"."""
    if count > MAX_TENSORS:
        raise PayloadTooLargeError(f"the request has {count} {kind}; at most {MAX_TENSORS} are possible")


def count_objects(count: int, array: Array) -> int:
    """Add a BYTES array's number of elements to `count`. Raises PayloadTooLargeError if there are too many."""
    if array.dtype.char != "O":
        return count
    count += array.size
    _check_objects(count)
    return count


def _check_objects(count: int) -> None:
    if count > MAX_OBJECTS:
        raise PayloadTooLargeError(
            f"the request has {count} elements of BYTES or more; the server takes {MAX_OBJECTS} at once: "
            "send them in several requests"
        )


def num_elements(name: str, shape: Sequence[int]) -> int:
    """The number of elements of a tensor with this shape.

    Raises:
        InvalidArgumentError: there is a negative dimension, more than 64 dimensions, or more than 2**59 elements.
    """
    count = 1
    for dim in shape:
        count *= dim
        if dim <= 0 or count > MAX_ELEMENTS:
            return _num_elements_checked(name, shape)
    if len(shape) > MAX_RANK:
        raise InvalidArgumentError(f"tensor '{name}' has {len(shape)} dimensions; at most {MAX_RANK} are possible")
    return count


def _num_elements_checked(name: str, shape: Sequence[int]) -> int:
    if len(shape) > MAX_RANK:
        raise InvalidArgumentError(f"tensor '{name}' has {len(shape)} dimensions; at most {MAX_RANK} are possible")
    count = 1
    for dim in shape:
        if dim < 0:
            raise InvalidArgumentError(
                f"tensor '{name}' has shape {format_shape(shape)}; a dimension must be 0 or more, not {dim}"
            )
        count *= dim or 1
    if count > MAX_ELEMENTS:
        raise InvalidArgumentError(
            f"tensor '{name}': its shape {format_shape(shape)} causes total element count to exceed maximum size of "
            f"{_MAX_INT64}"
            if count > _MAX_INT64
            else f"byte size overflow for input '{name}': its shape {format_shape(shape)} has dimensions for more than "
            f"{MAX_ELEMENTS} elements, the limit whatever their size"
        )
    return 0 if 0 in shape else count


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Copy data to `bytes` in slices, so that the GIL is released between them. `bytes` are returned as they are."""
    if isinstance(data, bytes):
        return data
    if len(data) <= _JOINED_BYTES:
        return bytes(data)
    view = memoryview(data)
    # Join slices that are `bytes`: only for these does `bytes.join` release the GIL.
    return b"".join([bytes(view[start : start + _JOINED_BYTES]) for start in range(0, len(view), _JOINED_BYTES)])


def decode_raw(
    name: str, datatype: DataType, shape: tuple[int, ...], data: memoryview | bytes, model: str = ""
) -> Array:
    """Decode binary data to an array.

    Args:
        name: the tensor's name, for error messages.
        datatype: its element type.
        shape: its shape.
        data: exactly the tensor's bytes, at any alignment. The array keeps it alive.
        model: the model's name, for error messages.

    Returns:
        a read-only array. It is a view of `data`, except that BYTES are always copied and BOOL may be.

    Raises:
        InvalidArgumentError: the shape is invalid, or the data's size does not match the shape and datatype.
    """
    count = num_elements(name, shape)
    if datatype is _BYTES:
        _check_objects(count)
        return _decode_bytes(name, shape, count, as_bytes(data), f" for model '{model}'" if model else "")
    if len(data) != count * datatype.itemsize:
        where = f" for model '{model}'" if model else ""
        raise InvalidArgumentError(
            f"input byte size mismatch for input '{name}'{where}. Expected "
            f"{count * datatype.itemsize}, got {len(data)}: {datatype.value}{format_shape(shape)} takes so many bytes"
        )
    if type(data) is memoryview and not data.readonly:
        data = data.toreadonly()
    if datatype is _BOOL and count:
        octets = np.frombuffer(data, np.uint8)
        if int(octets.max()) > 1:
            # Any byte but 0 is true, as in C and in Triton's backends: perf_analyzer sends such bytes.
            array = (octets != 0).reshape(shape)
            array.flags.writeable = False
            return array
    return np.ndarray(shape, datatype.dtype, data)


def _decode_bytes(name: str, shape: tuple[int, ...], count: int, data: bytes, where: str) -> Array:
    end = len(data)
    # Refuse a shape with more elements than the data can hold, before memory for them is allocated: each element takes
    # at least 4 bytes.
    if count * _LENGTH.size > end:
        raise InvalidArgumentError(
            f"tensor '{name}' of BYTES{format_shape(shape)} takes at least {count * _LENGTH.size} bytes "
            f"(a length of 4 bytes for each element), but {end} came"
        )
    elements: list[bytes] = []
    start = 0
    for index in range(count):
        begin = start + 4
        if start == end:
            raise InvalidArgumentError(
                f"expected {count} string elements for inference input '{name}'{where}, got {index}"
            )
        if begin > end:
            raise InvalidArgumentError(
                f"tensor '{name}' of BYTES{format_shape(shape)} ends after {end} bytes, within element {index}"
            )
        start = begin + _LENGTH.unpack_from(data, start)[0]
        if start > end:
            raise InvalidArgumentError(
                f"tensor '{name}': element {index} claims {start - begin} bytes, but {end - begin} are left"
            )
        elements.append(data[begin:start])
    if start != end:
        raise InvalidArgumentError(
            f"unexpected number of string elements {count + 1} for inference input '{name}'{where}, expecting {count}: "
            f"they take {start} bytes, but {end} came"
        )
    return object_array(elements, shape)


def object_array(elements: list[bytes], shape: tuple[int, ...]) -> Array:
    """Make a read-only BYTES array of the given shape."""
    array = np.empty(len(elements), np.object_)
    # Copy in slices: a thread can release the GIL between them.
    for begin in range(0, len(elements), _SLICE):
        array[begin : begin + _SLICE] = elements[begin : begin + _SLICE]
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def encode_raw(array: Array) -> bytes | memoryview:
    """Encode an array as binary data, the reverse of `decode_raw`.

    Returns:
        bytes, or a view of a large contiguous array's memory: use the view before the array changes.

    Raises:
        InvalidArgumentError: the array's dtype has no datatype.
        InternalError: an element of a BYTES array is not `bytes`, or has 4 GiB or more.
    """
    if array.dtype.char == "O":
        return _encode_bytes(array)
    if array.dtype not in _DTYPES:
        DataType.of(array)
    if array.nbytes <= _COPY_BYTES or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def _encode_bytes(array: Array) -> bytes:
    pieces: list[bytes] = []
    for index, element in enumerate(array.ravel().tolist()):
        if not isinstance(element, bytes):
            raise InternalError(f"element {index} of a BYTES tensor is a {type(element).__name__}, not bytes")
        if len(element) > _MAX_ELEMENT_BYTES:
            raise InternalError(f"element {index} of a BYTES tensor has {len(element)} bytes; 4 GiB is the limit")
        pieces += (_LENGTH.pack(len(element)), element)
    return b"".join(pieces)
