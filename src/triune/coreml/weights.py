"""Read weight files, which are beside the protobuf of an ML Program. Each record is checked before it is read.

The format (MILBlob, version 2; little endian): a header of 64 bytes (u32 count of records, u32 version), then records,
each 64-byte aligned: a header of 64 bytes (u32 0xDEADBEEF, u32 element type, u64 bytes, u64 offset of the data, u64
bits of padding at its end) and the data. A program refers to a record by the offset of its header.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.files import open_file
from triune.coreml.mil import Array, Constant, DType, Packed

_HEADER_BYTES = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_FILE_HEADER = struct.Struct("<II")
_RECORD_HEADER = struct.Struct("<IIQQQ")
_MODEL_FOLDER = "@model_path/"
_DTYPES: Mapping[int, DType] = {
    1: DType.FP16,
    2: DType.FP32,
    3: DType.UINT8,
    4: DType.INT8,
    5: DType.BF16,
    6: DType.INT16,
    7: DType.UINT16,
    8: DType.INT4,
    9: DType.UINT1,
    10: DType.UINT2,
    11: DType.UINT4,
    12: DType.UINT3,
    13: DType.UINT6,
    14: DType.INT32,
    15: DType.UINT32,
}


class WeightFile:
    """One weight file. Its arrays are read-only views of `data`, which they keep alive."""

    def __init__(self, name: str, data: bytes | mmap.mmap) -> None:
        """Check the header of the file.

        Raises:
            InvalidArgumentError: the file is shorter than its header.
            UnsupportedError: the version of the format is not known.
        """
        self._name = name
        self._data = data
        if len(data) < _HEADER_BYTES:
            raise InvalidArgumentError(f"'{name}': {len(data)} bytes are too few for a weight file's header of 64")
        version = _FILE_HEADER.unpack_from(data, 0)[1]
        if version != _VERSION:
            raise UnsupportedError(f"'{name}': a weight file of version {version}; version {_VERSION} is known")

    def read(self, offset: int, dtype: DType, shape: tuple[int, ...]) -> Constant:
        """Read the tensor whose record begins at `offset`. Nothing is copied; elements of less than 8 bits stay packed.

        Raises:
            InvalidArgumentError: there is no such record in the file, or it has another type or size.
        """
        where = f"'{self._name}': the record at {offset}"
        size = len(self._data)
        if offset < _HEADER_BYTES or offset % _HEADER_BYTES or offset + _HEADER_BYTES > size:
            raise InvalidArgumentError(f"{where} is not in a file of {size} bytes on a boundary of 64")
        sentinel, code, num_bytes, start, padding_bits = _RECORD_HEADER.unpack_from(self._data, offset)
        if sentinel != _SENTINEL:
            raise InvalidArgumentError(f"{where} begins with {sentinel:#x}, not {_SENTINEL:#x}")
        if _DTYPES.get(code) is not dtype:
            held = _DTYPES[code].value if code in _DTYPES else f"unknown type {code}"
            raise InvalidArgumentError(f"{where} holds {held}, but the program wants {dtype.value}")
        if start + num_bytes > size:
            raise InvalidArgumentError(
                f"{where} claims bytes {start} to {start + num_bytes} of a file of {size} bytes: is it truncated?"
            )
        num_bits = math.prod(shape) * dtype.bits
        expected_bytes = (num_bits + 7) // 8
        # Only records of elements with less than 8 bits state padding bits.
        expected_padding = 8 * expected_bytes - num_bits
        if num_bytes != expected_bytes or (dtype.bits < 8 and padding_bits != expected_padding):
            raise InvalidArgumentError(
                f"{where} holds {num_bytes} bytes, but {dtype.value} of shape {list(shape)} takes {expected_bytes}"
            )
        if dtype.bits < 8:
            packed = np.frombuffer(self._data, np.uint8, num_bytes, start)
            return Constant(Packed(packed, dtype.bits, dtype is DType.INT4, shape), dtype)
        # Do not read an empty tensor: it may begin at the end of the file, where numpy's frombuffer fails.
        array: Array = (
            np.frombuffer(self._data, dtype.numpy, math.prod(shape), start) if num_bytes else np.empty(0, dtype.numpy)
        )
        return Constant(array.reshape(shape), dtype)


class Weights(Protocol):
    """Opens the weight files of a program."""

    def open(self, file_name: str) -> WeightFile:
        """Open the file that the program calls `file_name`, such as "@model_path/weights/weight.bin", once.

        Raises:
            NotFoundError: the file does not exist.
            InvalidArgumentError: the path leads out of the package, or the file is not a weight file.
        """
        ...


class FolderWeights:
    """The weight files of a program in `folder`, which programs refer to as "@model_path". No file outside `root` is
    opened.
    """

    def __init__(self, folder: Path, root: Path, *, maps: bool = True) -> None:
        """If `maps`, files are mapped into memory. Otherwise they are read, so that later changes of the files have no
        effect.
        """
        self._folder = folder
        self._root = root
        self._open_file = _map if maps else _read
        self._open: dict[str, WeightFile] = {}

    def open(self, file_name: str) -> WeightFile:
        """See `Weights.open`."""
        if file_name not in self._open:
            path = inside(self._root, self._folder / _relative(file_name), file_name)
            self._open[file_name] = self._open_file(path)
        return self._open[file_name]


class WeightsFolder:
    """Weight files directly in a folder, such as coremltools keeps for a specification in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, WeightFile] = {}

    def open(self, file_name: str) -> WeightFile:
        """See `Weights.open`."""
        base = _relative(file_name).name
        if base not in self._open:
            self._open[base] = _map(inside(self._folder, self._folder / base, file_name))
        return self._open[base]


class MemoryWeights:
    """Weight files in memory, by name. "@model_path/weights/weight.bin" is found also as "weights/weight.bin" or
    "weight.bin".
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._open: dict[str, WeightFile] = {}

    def open(self, file_name: str) -> WeightFile:
        """See `Weights.open`."""
        if file_name not in self._open:
            relative = _relative(file_name)
            names = (file_name, str(relative), relative.name)
            found = next((name for name in names if name in self._files), None)
            if found is None:
                raise NotFoundError(f"the program's weight file '{file_name}' is not among {sorted(self._files)}")
            self._open[file_name] = WeightFile(found, self._files[found])
        return self._open[file_name]


class NoWeights:
    """The weights of a specification without weight files: all constants must be in the specification."""

    def open(self, file_name: str) -> WeightFile:
        """Raise NotFoundError."""
        raise NotFoundError(f"the program's weight file '{file_name}' did not come with it; give the whole .mlpackage")


def inside(root: Path, path: Path, name: str) -> Path:
    """Resolve `path`, following links, and check that it is a file or folder in `root`.

    Raises:
        InvalidArgumentError: `path` is outside `root`. Messages call it `name`.
        NotFoundError: `path` does not exist.
    """
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFoundError(f"'{root}' refers to '{name}', which does not exist: {error}") from error
    if not resolved.is_relative_to(root.resolve()):
        raise InvalidArgumentError(f"'{root}' refers to '{name}', which leads out of it, to '{resolved}'")
    return resolved


def _relative(file_name: str) -> PurePosixPath:
    path = PurePosixPath(file_name.removeprefix(_MODEL_FOLDER))
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in file_name:
        raise InvalidArgumentError(f"the program's weight file '{file_name}' is not a path inside the package")
    return path


def _map(path: Path) -> WeightFile:
    if not path.is_file():
        raise InvalidArgumentError(f"the weight file '{path}' is not a file")
    try:
        with path.open("rb") as file:
            # An empty file cannot be mapped. `WeightFile` refuses it, for it has no header.
            is_empty = path.stat().st_size == 0
            data = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read the weight file '{path}': {error}") from error
    return WeightFile(str(path), data)


def _read(path: Path) -> WeightFile:
    try:
        with open_file(path) as file:
            return WeightFile(str(path), file.read())
    except OSError as error:
        raise InvalidArgumentError(f"cannot read the weight file '{path}': {error}") from error
