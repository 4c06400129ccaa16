"""Reads the values at the beginning of a GGUF file: the metadata and the entries of the tensors. Each size is compared
with the remaining bytes before it is used.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError

Value: TypeAlias = bool | int | float | str | Array | tuple[str, ...]
"""A value of the metadata. An array of numbers is a view of the file; an array of strings is a tuple."""

MAX_STRING_BYTES: Final = 16 << 20
MAX_STRINGS: Final = 1 << 21
"""The most strings in all arrays of a file together: ten times as many as the largest vocabulary with its merges."""

_U64: Final = struct.Struct("<Q")
_STRING: Final = 8
_ARRAY: Final = 9
_BOOL: Final = 7
_NUMBERS: Final[Mapping[int, np.dtype[Any]]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    _BOOL: np.dtype("<u1"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}


class Reader:
    """Reads one value after another.

    Attributes:
        position: where the next value starts, in bytes from the file's start.
    """

    def __init__(self, content: Array, name: str) -> None:
        """Args:
        content: UINT8 [bytes], the whole file.
        name: names the file in errors.
        """
        self.position = 0
        self._bytes = content.data
        self._content = content
        self._name = name
        self._strings_left = MAX_STRINGS

    @property
    def bytes_left(self) -> int:
        """The number of bytes from `position` to the file's end."""
        return len(self._bytes) - self.position

    def count(self, what: str, *, least_bytes: int, most: int) -> int:
        """Read a UINT64 that counts things, such as tensors. `what` names it in errors.

        Each of the things takes at least `least_bytes` bytes in the file, and at most `most` of them are read.
        """
        count = self.u64(what)
        limit = min(most, self.bytes_left // least_bytes)
        if count > limit:
            raise self.error(
                f"{what} is {count}; at most {most} are read, and the {self.bytes_left} bytes left hold "
                f"{self.bytes_left // least_bytes}"
            )
        return count

    def u32(self, what: str) -> int:
        """Read a UINT32. `what` names it in errors."""
        return int(struct.unpack_from("<I", self._bytes, self._advance(4, what))[0])

    def u64(self, what: str) -> int:
        """Read a UINT64. `what` names it in errors."""
        return int(struct.unpack_from("<Q", self._bytes, self._advance(8, what))[0])

    def text(self, what: str, max_bytes: int = MAX_STRING_BYTES) -> str:
        """Read a string in UTF-8 of at most `max_bytes` bytes. `what` names it in errors."""
        length = self.u64(what)
        if length > max_bytes:
            raise self.error(f"{what} has {length} bytes; at most {max_bytes} are read")
        start = self._advance(length, what)
        try:
            return str(self._bytes[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8: {error.reason} at byte {error.start} of it") from None

    def value(self, key: str) -> Value:
        """Read a value of the metadata: its type, then the value itself. `key` names it in errors."""
        kind = self.u32(f"the type of {key!r}")
        if kind == _STRING:
            return self.text(repr(key))
        if kind == _ARRAY:
            return self._array(key)
        number = self._numbers(kind, 1, key)[0].item()
        return bool(number) if kind == _BOOL else number

    def _array(self, key: str) -> Value:
        kind = self.u32(f"the type of the elements of {key!r}")
        what = f"the length of {key!r}"
        if kind == _STRING:
            length = self.count(what, least_bytes=8, most=self._strings_left)
            self._strings_left -= length
            return self._strings(key, length)
        if kind == _ARRAY:
            raise UnsupportedError(f"{self._name}: {key!r} is an array of arrays, which no known model has")
        return self._numbers(kind, self.u64(what), key)

    def _strings(self, key: str, length: int) -> tuple[str, ...]:
        # A vocabulary has a hundred thousand strings, so this repeats the code of `text` without function calls, which
        # is faster.
        content, position, end, unpack = self._bytes, self.position, len(self._bytes), _U64.unpack_from
        texts: list[str] = []
        try:
            for _ in range(length):
                (size,) = unpack(content, position)
                position += 8
                if size > end - position or size > MAX_STRING_BYTES:
                    raise self.error(
                        f"element {len(texts)} of {key!r} has {size} bytes at byte {position}; the file ends "
                        f"{end - position} bytes later, and at most {MAX_STRING_BYTES} are read"
                    )
                texts.append(str(content[position : position + size], "utf-8"))
                position += size
        except struct.error:
            raise self.error(f"the file ends within element {len(texts)} of {key!r}") from None
        except UnicodeDecodeError as error:
            raise self.error(f"element {len(texts)} of {key!r} is not UTF-8: {error.reason}") from None
        self.position = position
        return tuple(texts)

    def _numbers(self, kind: int, count: int, key: str) -> Array:
        dtype = _NUMBERS.get(kind)
        if dtype is None:
            raise self.error(f"{key!r} has the value type {kind}; known are 0 to 12")
        start = self._advance(count * dtype.itemsize, repr(key))
        values = self._content[start : start + count * dtype.itemsize].view(dtype)
        if kind == _BOOL and values.size and values.max() > 1:
            raise self.error(f"{key!r} is a boolean of value {values.max()}; expected 0 or 1")
        return values

    def error(self, message: str) -> InvalidArgumentError:
        """The error for an invalid file: `message`, with the file's name before it."""
        return InvalidArgumentError(f"{self._name}: {message}")

    def _advance(self, size: int, what: str) -> int:
        """Advance by `size` bytes, and return the position before that. `what` names the bytes in errors."""
        if size > self.bytes_left:
            raise self.error(
                f"{what} needs {size} bytes at byte {self.position}; the file ends {self.bytes_left} bytes later: it "
                "is cut short or broken; copy or download it again"
            )
        start = self.position
        self.position += size
        return start
