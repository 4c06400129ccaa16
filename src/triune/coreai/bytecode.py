"""Read the parts of MLIR bytecode that Core AI's Python bindings do not: the header, and the resources (weights).

The format is MLIR's own (https://mlir.llvm.org/docs/BytecodeFormat): each section has an id and a length, and integers
take one to nine bytes. Every length is checked before it is used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from triune.core.errors import InvalidArgumentError, UnsupportedError

MAGIC: Final = b"ML\xefR"
NEWEST: Final = 6
"""The newest version of the format that can be read."""

_STRINGS, _RESOURCES, _RESOURCE_OFFSETS = 0, 5, 6
_BLOB = 0


@dataclass(frozen=True, slots=True)
class Bytecode:
    """The bytecode file of a module.

    Attributes:
        version: the version of the format.
        producer: the program that wrote it, such as "MLIR22.0.0git".
        sections: the offset and the length in bytes of each section, by id.
    """

    data: memoryview
    version: int
    producer: str
    sections: Mapping[int, tuple[int, int]]

    def resources(self) -> dict[str, memoryview]:
        """The bytes of each resource, by its key.

        Raises:
            InvalidArgumentError: the section is malformed.
        """
        if _RESOURCES not in self.sections or _RESOURCE_OFFSETS not in self.sections:
            return {}
        strings = self._strings()
        place = self.sections[_RESOURCES][0]
        found: dict[str, memoryview] = {}
        for key, size, kind in self._resource_sizes():
            if kind == _BLOB:
                reader = _Reader(self.data, place, min(place + size, len(self.data)))
                alignment, length = reader.number(), reader.number()
                reader.align(alignment)
                found[strings[key] if key < len(strings) else _broken("a resource has no name")] = reader.bytes(length)
            place += size
        return found

    def _resource_sizes(self) -> Iterator[tuple[int, int, int]]:
        reader = self._section(_RESOURCE_OFFSETS)
        # Skip the number of groups of external resources: the groups of the dialects follow them in the same format,
        # so all groups are read until the section ends.
        reader.number()
        while not reader.is_at_end:
            reader.number()
            for _ in range(reader.number()):
                yield reader.number(), reader.number(), reader.byte()

    def _strings(self) -> list[str]:
        if _STRINGS not in self.sections:
            return []
        reader = self._section(_STRINGS)
        lengths = [reader.number() for _ in range(reader.number())]
        # The lengths of the strings are stored in reverse order: the last string comes first.
        place = reader.end
        strings: list[str] = []
        for length in lengths:
            place -= length
            if place < reader.place or length < 1:
                _broken("its strings are longer than their section")
            strings.append(bytes(self.data[place : place + length - 1]).decode(errors="replace"))
        return strings[::-1]

    def _section(self, section: int) -> "_Reader":
        place, length = self.sections[section]
        return _Reader(self.data, place, place + length)


def read_bytecode(data: bytes | memoryview) -> Bytecode:
    """Read the header and the offsets of the sections.

    Raises:
        InvalidArgumentError: the bytes are not MLIR bytecode, or are truncated.
        UnsupportedError: the format is newer than those that are known.
    """
    view = memoryview(data)
    if bytes(view[:4]) != MAGIC:
        raise InvalidArgumentError(f"it begins with {bytes(view[:4])!r}, not with {MAGIC!r}: it is not MLIR bytecode")
    reader = _Reader(view, 4, len(view))
    version = reader.number()
    if version > NEWEST:
        raise UnsupportedError(f"its format is of version {version}; up to {NEWEST} is read")
    producer = reader.text()
    sections: dict[int, tuple[int, int]] = {}
    while not reader.is_at_end:
        section = reader.byte()
        length = reader.number()
        if section & 0x80:
            reader.align(reader.number())
        sections[section & 0x7F] = (reader.place, length)
        reader.bytes(length)
    return Bytecode(view, version, producer, sections)


class _Reader:
    def __init__(self, data: memoryview, place: int, end: int) -> None:
        self.data, self.place, self.end = data, place, end

    @property
    def is_at_end(self) -> bool:
        return self.place >= self.end

    def byte(self) -> int:
        return self.bytes(1)[0]

    def bytes(self, length: int) -> memoryview:
        if length > self.end - self.place:
            _broken(f"{length} bytes at {self.place} reach beyond {self.end}")
        self.place += length
        return self.data[self.place - length : self.place]

    def number(self) -> int:
        """Read an integer: the number of trailing zero bits of its first byte is the number of bytes that follow it.

        MLIR calls this form PrefixVarInt.
        """
        first = self.byte()
        if first & 1:
            return first >> 1
        if first == 0:
            return int.from_bytes(self.bytes(8), "little")
        more = (first & -first).bit_length() - 1
        self.place -= 1
        return int.from_bytes(self.bytes(more + 1), "little") >> (more + 1)

    def text(self) -> str:
        start = self.place
        while self.byte():
            pass
        return bytes(self.data[start : self.place - 1]).decode(errors="replace")

    def align(self, alignment: int) -> None:
        if alignment < 1 or alignment & (alignment - 1):
            _broken(f"an alignment of {alignment}")
        self.bytes(-self.place % alignment)


def _broken(why: str) -> str:
    raise InvalidArgumentError(f"the bytecode is broken or cut off: {why}")
