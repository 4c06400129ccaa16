"""Tensors in shared memory: one process writes them, the other reads them without a copy.

The memory has no name, so that the system frees it even if both processes die.
"""

import mmap
import os
from collections.abc import Mapping, Sequence
from math import prod
from multiprocessing.shared_memory import SharedMemory
from typing import Any, TypeAlias

import numpy as np

from triune.core.datatypes import CHUNK_ELEMENTS, Array, DataType
from triune.core.errors import InternalError, UnavailableError

Layout: TypeAlias = Sequence[Any]
"""A tensor's name, datatype, shape, and its offset and length in bytes, as a JSON list."""

_ALIGNMENT_BYTES = 64
_SMALLEST_BYTES = 1 << 16
_KEPT_BYTES = 32 << 20
_MANY_TIMES = 4
_LENGTHS = np.dtype(np.int64)


def new_memory(size_bytes: int) -> int:
    """Create shared memory without a name, filled with zeros.

    Returns:
        its file descriptor, which the caller must close.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("triune-tensors")
        os.ftruncate(descriptor, size_bytes)
        return descriptor
    return unlinked_memory(size_bytes)


def unlinked_memory(size_bytes: int) -> int:
    """Create shared memory like `new_memory`, on systems without `memfd_create` such as macOS.

    It has a name, which is removed at once.
    """
    memory = SharedMemory(create=True, size=size_bytes)
    try:
        # Keep only the descriptor: `multiprocessing.shared_memory` would keep the name, which would exist after a
        # crash.
        return os.dup(memory._fd)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    finally:
        memory.close()
        memory.unlink()


class Writer:
    """Writes the tensors of each message into the same shared memory.

    The memory is replaced if it is too small, or if it is large and several times the size of the message, so that one
    large request does not keep its memory forever.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, Array]) -> tuple[list[Layout], int | None]:
        """Write the tensors of a message over those of the previous message.

        Returns:
            the tensors' layouts, and the file descriptor of the memory if it is new: the caller sends it to the reader
                and closes it.

        Raises:
            InvalidArgumentError: KServe has no datatype for the dtype of an array.
            InternalError: an element of a BYTES array is not `bytes`.
            UnavailableError: the memory cannot be allocated.
        """
        layouts: list[Layout] = []
        values: list[tuple[Array, int]] = []
        end = 0
        for name, array in arrays.items():
            datatype = DataType.of(array)
            value = _pack(name, array) if datatype is DataType.BYTES else array
            offset = -(-end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
            end = offset + value.nbytes
            layouts.append((name, datatype.value, array.shape, offset, value.nbytes))
            values.append((value, offset))
        descriptor = None
        size = 0 if self._memory is None else len(self._memory)
        if end > size or (size > _KEPT_BYTES and end <= size // _MANY_TIMES):
            size_bytes = max(_SMALLEST_BYTES, 1 << (end - 1).bit_length())
            # Map new memory. The old memory stays mapped as long as there are views of it.
            descriptor, self._memory = _mapped(size_bytes)
        for value, offset in values:
            np.ndarray(value.shape, value.dtype, self._memory, offset)[...] = value
        return layouts, descriptor


class Reader:
    """Reads the tensors that a `Writer` in another process wrote."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def replace(self, descriptor: int) -> None:
        """Map another shared memory. The caller must close the descriptor."""
        self._memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)

    def view(self, layouts: Sequence[Layout]) -> dict[str, Array]:
        """The tensors of a message by name: read-only views that are valid until the next write. BYTES are copied.

        Raises:
            InternalError: a tensor exceeds the memory.
        """
        arrays: dict[str, Array] = {}
        for name, datatype, shape, offset, num_bytes in layouts:
            try:
                arrays[name] = self._tensor(DataType(datatype), tuple(shape), offset, num_bytes)
            except (TypeError, ValueError) as error:
                raise InternalError(f"tensor '{name}' of a worker process does not fit its memory: {error}") from error
        return arrays

    def _tensor(self, datatype: DataType, shape: tuple[int, ...], offset: int, num_bytes: int) -> Array:
        if offset < 0:
            # Refuse a negative offset: numpy would accept it, and read outside the memory.
            raise ValueError(f"its offset is {offset}")
        if datatype is DataType.BYTES:
            return _unpack(np.ndarray(num_bytes, np.uint8, self._memory, offset), shape)
        return np.ndarray(shape, datatype.dtype, self._memory, offset)


def _mapped(size_bytes: int) -> tuple[int, mmap.mmap]:
    try:
        descriptor = new_memory(size_bytes)
        try:
            return descriptor, mmap.mmap(descriptor, size_bytes)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"there are no {size_bytes} bytes of shared memory for tensors now: {error}; send the request later, or a "
            "smaller one"
        ) from error


def _pack(name: str, array: Array) -> Array:
    """Encode a BYTES array as uint8: the length of each element as int64, then the contents."""
    flat = array.ravel()
    lengths: list[bytes] = []
    contents: list[bytes] = []
    try:
        for start in range(0, flat.size, CHUNK_ELEMENTS):
            elements: list[bytes] = flat[start : start + CHUNK_ELEMENTS].tolist()
            lengths.append(np.array([len(element) for element in elements], _LENGTHS).tobytes())
            contents.append(b"".join(elements))
    except TypeError as error:
        raise InternalError(f"tensor '{name}' must hold bytes: {error}") from error
    return np.frombuffer(b"".join(lengths + contents), np.uint8)


def _unpack(packed: Array, shape: tuple[int, ...]) -> Array:
    """Decode what `_pack` encoded. Raises ValueError if the lengths do not add up."""
    array = np.empty(shape, np.object_)
    count = prod(shape)
    lengths = np.frombuffer(packed[: count * _LENGTHS.itemsize].tobytes(), _LENGTHS)
    content = packed[count * _LENGTHS.itemsize :].tobytes()
    if lengths.size != count or lengths.sum() != len(content) or lengths.min(initial=0) < 0:
        raise ValueError(f"{len(content)} bytes are not what {lengths.size} of {count} lengths say")
    flat = array.reshape(-1)
    begin = 0
    for start in range(0, count, CHUNK_ELEMENTS):
        elements: list[bytes] = []
        sizes: list[int] = lengths[start : start + CHUNK_ELEMENTS].tolist()
        for length in sizes:
            elements.append(content[begin : begin + length])
            begin += length
        flat[start : start + CHUNK_ELEMENTS] = elements
    return array
