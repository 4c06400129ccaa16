"""The binary file of a CTranslate2 model, mapped into memory.

The file has a version, the name of the model's kind, the kind's revision, and a list of variables: name, shape, type,
bytes. Aliases of some variables follow. All numbers are little-endian; a string is its length and its bytes, which end
with a zero byte. Source: CTranslate2's `python/ctranslate2/specs/model_spec.py`, `_serialize`, version 6.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.files import non_file_kind

_VERSION: Final = 6
_MAX_VARIABLES: Final = 1 << 20
_MAX_RANK: Final = 8
_DTYPES: Final[tuple[np.dtype[Any], ...]] = (
    np.dtype("<f4"),
    np.dtype("<i1"),
    np.dtype("<i2"),
    np.dtype("<i4"),
    np.dtype("<f2"),
    np.dtype(ml_dtypes.bfloat16),
)
"""The element types of variables; the file gives the index in this tuple."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The position of a variable in the file.

    Attributes:
        dtype: its element type.
        shape: its shape.
        begin: the offset of its first byte.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int


class CTranslate2File:
    """An opened model.bin.

    Attributes:
        kind: the name of the model's kind: "WhisperSpec".
        variables: the variables by name, including their aliases.
    """

    def __init__(self, path: Path) -> None:
        """Map the file into memory, and check that every tensor lies within it.

        Raises:
            NotFoundError: there is no such file.
            UnsupportedError: it is of another version.
            InvalidArgumentError: it is truncated, or not what it claims to be.
        """
        self._where = f"{path.parent.name}/{path.name}"
        try:
            if (strange := non_file_kind(path)) is not None:
                raise InvalidArgumentError(f"{self._where}: it is {strange}, not a file")
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: there is no such file") from None
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"{self._where}: cannot be read: {error}") from error
        self._place = 0
        version = self._number("I")
        if version != _VERSION:
            raise UnsupportedError(f"{self._where}: the version of the file is {version}; known here is {_VERSION}")
        self.kind = self._text()
        # Skip the revision of the model's kind: the variables are checked anyway.
        self._number("I")
        self.variables = dict(self._variable() for _ in range(self._count("variables")))
        for _ in range(self._count("other names")):
            alias, name = self._text(), self._text()
            if name not in self.variables:
                raise InvalidArgumentError(f"{self._where}: {alias!r} is another name for {name!r}, which is not there")
            self.variables[alias] = self.variables[name]

    def read(self, name: str) -> Array:
        """A variable in its own shape and type, as a copy. Raises NotFoundError if there is none of this name."""
        variable = self.variables.get(name)
        if variable is None:
            raise NotFoundError(f"{self._where} has no variable {name!r}")
        # Copy the values, since a variable may begin at an unaligned byte.
        count = math.prod(variable.shape)
        values = np.frombuffer(self._data, variable.dtype, count, variable.begin).reshape(variable.shape).copy()
        values.flags.writeable = False
        return values

    def whole(self, name: str) -> int:
        """A variable that is one whole number. Raises InvalidArgumentError if it is missing or something else."""
        variable = self.variables.get(name)
        if variable is None or variable.shape or variable.dtype.kind != "i":
            raise InvalidArgumentError(f"{self._where}: the whole number {name!r} is missing")
        return int(self.read(name))

    def _variable(self) -> tuple[str, Variable]:
        name = self._text()
        rank = self._number("B")
        if rank > _MAX_RANK:
            raise InvalidArgumentError(f"{self._where}: {name!r} has {rank} dimensions; at most {_MAX_RANK} are read")
        shape = tuple(self._number("I") for _ in range(rank))
        code, num_bytes = self._number("B"), self._number("I")
        if code >= len(_DTYPES):
            raise InvalidArgumentError(f"{self._where}: {name!r} is of type {code}; known are 0 to {len(_DTYPES) - 1}")
        dtype, begin = _DTYPES[code], self._place
        needed, left = math.prod(shape) * dtype.itemsize, len(self._data) - begin
        if needed != num_bytes or num_bytes > left:
            raise InvalidArgumentError(
                f"{self._where}: {name!r} {dtype}{list(shape)} takes {needed} bytes; the file says {num_bytes}, and "
                f"{left} follow"
            )
        self._place += num_bytes
        return name, Variable(dtype, shape, begin)

    def _count(self, what: str) -> int:
        count = self._number("I")
        if count > _MAX_VARIABLES:
            raise InvalidArgumentError(f"{self._where}: it claims {count} {what}; at most {_MAX_VARIABLES} are read")
        return count

    def _text(self) -> str:
        length = self._number("H")
        raw = self._data[self._place : self._place + length]
        self._place += length
        if len(raw) < length or not raw.endswith(b"\0") or not raw[:-1].isascii():
            raise InvalidArgumentError(f"{self._where}: at byte {self._place - length} there is no name; it is damaged")
        return raw[:-1].decode()

    def _number(self, form: str) -> int:
        try:
            (value,) = struct.unpack_from(f"<{form}", self._data, self._place)
        except struct.error:
            raise InvalidArgumentError(f"{self._where}: it ends at byte {len(self._data)}, within a number") from None
        self._place += struct.calcsize(f"<{form}")
        return value
