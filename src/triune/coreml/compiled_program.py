"""Read an ML Program that Core ML compiled: an `.mlmodelc` folder, as Xcode and coremlcompiler write it.

NAME.mlmodelc/
model.mil           the program, as text
weights/weight.bin  the same file as in the package; the text refers to its records
coremldata.bin      the interface: the package's own description, as protobuf behind a binary header
metadata.json       the interface again, as JSON for people
"""

import struct
from pathlib import Path
from types import MappingProxyType

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.files import read_file
from triune.coreml.compiled import METADATA, read_compiled
from triune.coreml.description import Description
from triune.coreml.mil import Program
from triune.coreml.mil_text import read_text
from triune.coreml.protos import model_pb2, parsed
from triune.coreml.read_description import read_description
from triune.coreml.read_program import read_program
from triune.coreml.weights import FolderWeights, inside

PROGRAM = "model.mil"
CORE_DATA = "coremldata.bin"
_NEURAL_NETWORK = "model.espresso.net"
# A compiled pipeline has a folder for each of its models. This is the folder of the first one.
_FIRST_OF_PIPELINE = "model0"

_LARGEST_TEXT_BYTES = 1 << 28
_LARGEST_DATA_BYTES = 1 << 26
# The layout of coremldata.bin: the kind of model (502 is an ML Program), a number that is 5 or 9, 20 zeros, the length
# of the name that follows, and the name "generic". Then come the specification's version, 28 zeros, the size of the
# description, and the description.
_HEAD = struct.Struct("<II20xQ")
_DESCRIPTION = struct.Struct("<I28xQ")
_ML_PROGRAM = 502
_LONGEST_NAME = 256


def is_of_core_ml(folder: Path) -> bool:
    """Whether a folder is a model of any kind that Core ML compiled."""
    return folder.suffix == ".mlmodelc" or (folder / CORE_DATA).exists() or (folder / PROGRAM).exists()


def read_compiled_program(folder: Path, *, maps_weights: bool = True) -> tuple[int, Description, Program]:
    """Read and check a compiled ML Program.

    Args:
        folder: the `.mlmodelc`.
        maps_weights: map weight files into memory instead of reading them: see `package.read_package`.

    Returns:
        the specification's version, the interface, and the program with its weights.

    Raises:
        InvalidArgumentError: a file is malformed; the message names it, and for the text also line and column.
        NotFoundError: a file does not exist.
        UnsupportedError: the folder holds another kind of model, or something that Triune does not know.
    """
    if not (folder / PROGRAM).exists():
        raise UnsupportedError(f"'{folder}' is a compiled {_other_kind(folder)}")
    name = str(folder / PROGRAM)
    proto = read_text(_text_of(inside(folder, folder / PROGRAM, PROGRAM), name), name)
    program = read_program(proto, FolderWeights(folder, folder, maps=maps_weights), name)
    found = _read_core_data(folder)
    if found is not None:
        return *found, program
    if not (folder / METADATA).exists():
        raise NotFoundError(f"'{folder}' has neither a {CORE_DATA} that can be read nor a {METADATA}")
    interface = read_compiled(folder).interface
    description = Description(MappingProxyType({interface.name: interface}), interface.name, MappingProxyType({}))
    return _version_of(program), description, program


def _other_kind(folder: Path) -> str:
    if (folder / _NEURAL_NETWORK).exists():
        return "neural network, which only Core ML itself runs: convert its source again, as an ML Program"
    if (folder / _FIRST_OF_PIPELINE).exists():
        return "pipeline, which only Core ML itself runs: give its models one by one"
    return f"model without a {PROGRAM}: only Core ML itself reads that form; give the .mlpackage it was made from"


def _text_of(path: Path, name: str) -> str:
    try:
        return _bytes_of(path, name, _LARGEST_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"'{name}' is not text: {error}") from error


def _bytes_of(path: Path, name: str, limit: int) -> bytes:
    if not path.is_file():
        raise InvalidArgumentError(f"'{name}' is not a file")
    size = path.stat().st_size
    if size > limit:
        raise UnsupportedError(f"'{name}' has {size} bytes; {limit} is the most that is read")
    try:
        return read_file(path, limit)
    except OSError as error:
        raise InvalidArgumentError(f"cannot read '{name}': {error}") from error


def _read_core_data(folder: Path) -> tuple[int, Description] | None:
    """The specification's version and the interface; None if the file is missing or has an unknown header."""
    path = folder / CORE_DATA
    if not path.exists():
        return None
    data = _bytes_of(inside(folder, path, CORE_DATA), str(path), _LARGEST_DATA_BYTES)
    if len(data) < _HEAD.size:
        return None
    kind, _, length = _HEAD.unpack_from(data)
    start = _HEAD.size + length
    if kind != _ML_PROGRAM or length > _LONGEST_NAME or start + _DESCRIPTION.size > len(data):
        return None
    version, size = _DESCRIPTION.unpack_from(data, start)
    start += _DESCRIPTION.size
    if start + size > len(data):
        raise InvalidArgumentError(
            f"'{path}' claims a description of {size} bytes at {start}, but has {len(data)}: is it truncated?"
        )
    proto = parsed(model_pb2().ModelDescription(), data[start : start + size], str(path), "the description of a model")
    return int(version), read_description(proto, str(path))


def _version_of(program: Program) -> int:
    """The lowest specification version that has the program's operator sets; 6 for CoreML5."""
    return 1 + max(int(each.opset.removeprefix("CoreML")) for each in program.functions.values())
