"""Tensors in shared memory: one side writes them, the other sees them where they lie.

The memory has no name. Whoever dies, nothing is left of it.
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
"""A tensor's name, datatype, shape, and its offset and length in bytes: a list that JSON carries."""

_ALIGNMENT_BYTES = 64
_SMALLEST_BYTES = 1 << 16
_KEPT_BYTES = 32 << 20
_MANY_TIMES = 4
_LENGTHS = np.dtype(np.int64)


def new_memory(size_bytes: int) -> int:
    """A file descriptor of nameless memory, zeros at first. The caller closes it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("triune-tensors")
        os.ftruncate(descriptor, size_bytes)
        return descriptor
    return unlinked_memory(size_bytes)


def unlinked_memory(size_bytes: int) -> int:
    """The same where the system has no `memfd_create`, as on macOS: memory whose name is taken away at once."""
    memory = SharedMemory(create=True, size=size_bytes)
    try:
        # The module opens memory by name only, and a name is what must not outlive a crash.
        return os.dup(memory._fd)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    finally:
        memory.close()
        memory.unlink()


class Writer:
    """Writes the tensors of one message after another into the same memory.

    It is replaced where it is too small, and where it is large and several times what the message takes: what one
    request took is not kept for ever.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, Array]) -> tuple[list[Layout], int | None]:
        """Write the tensors of a message over those of the one before.

        Returns:
            where they lie, and the descriptor of the memory if it is a new one: the reader must have it, and the
            caller closes it.

        Raises:
            InvalidArgumentError: an array's dtype is no KServe datatype.
            InternalError: an element of a BYTES array is no bytes.
            UnavailableError: there is no memory.
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
            # Views of the old one keep it mapped for as long as they live.
            descriptor, self._memory = _mapped(size_bytes)
        for value, offset in values:
            np.ndarray(value.shape, value.dtype, self._memory, offset)[...] = value
        return layouts, descriptor


class Reader:
    """Sees the tensors that a `Writer` of another process wrote."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def replace(self, descriptor: int) -> None:
        """Look at another memory from now on. The caller closes the descriptor."""
        self._memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)

    def view(self, layouts: Sequence[Layout]) -> dict[str, Array]:
        """The tensors of a message, by name: read-only views that hold until the writer writes again; BYTES as copies.

        Raises:
            InternalError: a layout leads out of the memory.
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
            # numpy would read what lies before the memory.
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
    """BYTES as uint8: the length of each element in int64, then their contents."""
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
    """What `_pack` packed. Raises ValueError where the lengths do not add up."""
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
