"""A GGUF file, mapped into memory: its metadata, and the position of each tensor. Everything is checked when the file
is opened.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.files import open_file
from triune.engine.weights.gguf.forms import FORMS, Form
from triune.engine.weights.gguf.reader import Reader, Value

_MAGIC: Final = int.from_bytes(b"GGUF", "little")
_VERSIONS: Final = (2, 3)
_MAX_TENSORS: Final = 1 << 16
_MAX_KEYS: Final = 1 << 16
_MAX_KEY_BYTES: Final = 1 << 16
_MAX_NAME_BYTES: Final = 256
"""The longest name, in bytes, that is read. ggml itself accepts 64."""
_MAX_DIMENSIONS: Final = 4
_MAX_ALIGNMENT: Final = 1 << 20
_ALIGNMENT_KEY: Final = "general.alignment"
_DEFAULT_ALIGNMENT: Final = 32


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a tensor in the file.

    Attributes:
        form: how its weights are stored.
        shape: its sizes, the outermost first: [out, in] for a matrix. (The file has them in reverse order.)
        start: the offset of its first byte from the file's start.
        size_bytes: the bytes that it takes.
    """

    form: Form
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """An opened GGUF file.

    Attributes:
        name: the file's name, for errors.
        metadata: values by key.
        places: the position of each tensor in the file, by its name there.
        content: UINT8 [bytes], the mapped file; read-only.
    """

    name: str
    metadata: Mapping[str, Value]
    places: Mapping[str, Place]
    content: Array

    def rows(self, name: str) -> Array:
        """A tensor's bytes, UINT8 [rows, bytes of a row]; a row is what lies along the last axis."""
        place = self.places[name]
        stored = self.content[place.start : place.start + place.size_bytes]
        return stored.reshape(math.prod(place.shape[:-1]), -1)


def open_gguf(path: Path) -> GgufFile:
    """Map a file into memory, and read its metadata and the entries of its tensors.

    Raises:
        InvalidArgumentError: it cannot be read, is truncated, or contradicts itself.
        UnsupportedError: its version, its byte order or the type of a tensor is not one that Triune reads.
    """
    content = _map(path)
    reader = Reader(content, path.name)
    _read_version(reader, path.name)
    num_tensors = reader.count("the number of tensors", least_bytes=24, most=_MAX_TENSORS)
    num_keys = reader.count("the number of metadata keys", least_bytes=13, most=_MAX_KEYS)
    metadata: dict[str, Value] = {}
    for index in range(num_keys):
        key = reader.text(f"metadata key {index}", _MAX_KEY_BYTES)
        if key in metadata:
            raise reader.error(f"the metadata key {key!r} is given twice")
        metadata[key] = reader.value(key)
    alignment = _alignment(reader, metadata)
    places: dict[str, Place] = {}
    for index in range(num_tensors):
        name = reader.text(f"the name of tensor {index}", _MAX_NAME_BYTES)
        if name in places:
            raise reader.error(f"the tensor {name!r} is given twice")
        places[name] = _read_place(reader, name, path.name, alignment)
    # The tensors' data start at the next multiple of the alignment, and the offsets of tensors count from there.
    start = -(-reader.position // alignment) * alignment
    return GgufFile(path.name, metadata, _checked(reader, places, start, content.size), content)


def _map(path: Path) -> Array:
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise InvalidArgumentError(f"{path.name}: the file is empty")
            # This is a plain array that shares the mapped memory: a slice of a numpy.memmap takes a hundred times as
            # long.
            return np.memmap(file, np.uint8, "r").view(np.ndarray)
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_version(reader: Reader, name: str) -> None:
    magic = reader.u32("the magic number")
    if magic != _MAGIC:
        raise reader.error(f"it starts with {magic.to_bytes(4, 'little')!r}, not b'GGUF': it is no GGUF file")
    version = reader.u32("the version")
    if version in _VERSIONS:
        return
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    what = f"big-endian (version {swapped})" if swapped in _VERSIONS else f"of version {version}"
    raise UnsupportedError(f"{name}: the file is {what}; read are little-endian ones of the versions 2 and 3")


def _alignment(reader: Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    # Tensors are views of the mapped file, and an element takes up to 8 bytes, so each tensor must begin at a multiple
    # of 8.
    if type(alignment) is not int or not 8 <= alignment <= _MAX_ALIGNMENT or alignment.bit_count() != 1:
        raise reader.error(f"{_ALIGNMENT_KEY} is {alignment!r}; expected a power of two from 8 to {_MAX_ALIGNMENT}")
    return alignment


def _read_place(reader: Reader, name: str, file_name: str, alignment: int) -> Place:
    """Read a tensor's entry. Its `start` counts from the start of the tensors' data; `_checked` makes it count from the
    file's start.
    """
    num_dimensions = reader.u32(f"the number of dimensions of {name!r}")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise reader.error(f"the tensor {name!r} has {num_dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}")
    sizes = [reader.u64(f"size {axis} of {name!r}") for axis in range(num_dimensions)]
    number = reader.u32(f"the type of {name!r}")
    start = reader.u64(f"the offset of {name!r}")
    form = FORMS.get(number)
    if form is None:
        raise UnsupportedError(f"{file_name}: the tensor {name!r} has ggml's type {number}, which is not known here")
    if 0 in sizes or sizes[0] % form.block_size:
        raise reader.error(
            f"the tensor {name!r} has the sizes {sizes}; expected no 0, and the first a multiple of {form.name}'s "
            f"{form.block_size}"
        )
    if start % alignment:
        raise reader.error(f"the tensor {name!r} starts at offset {start}, which is no multiple of {alignment}")
    size_bytes = math.prod(sizes) // form.block_size * form.block_bytes
    return Place(form, tuple(reversed(sizes)), start, size_bytes)


def _checked(reader: Reader, places: Mapping[str, Place], data_start: int, file_bytes: int) -> Mapping[str, Place]:
    """Check that all tensors lie within the file and do not overlap. In `places`, starts count from the byte
    `data_start`, at which the tensors' data begin.

    Returns the places, with starts that count from the file's start.
    """
    needed = max((data_start + place.start + place.size_bytes for place in places.values()), default=0)
    end = data_start
    owner = "the head"
    checked = dict(places)
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        start = data_start + place.start
        if start + place.size_bytes > file_bytes:
            raise reader.error(
                f"the tensor {name!r}, {place.form.name}{list(place.shape)}, lies at bytes {start} to "
                f"{start + place.size_bytes}, and the file is cut short: it has {file_bytes} of {needed} bytes; copy "
                "or download it again"
            )
        if start < end:
            raise reader.error(f"the tensor {name!r} starts at byte {start}, within {owner}, which ends at {end}")
        end, owner = start + place.size_bytes, repr(name)
        checked[name] = Place(place.form, place.shape, start, place.size_bytes)
    return checked
