"""Read and check an `.aimodel` folder before Apple's library does, which crashes on some broken files."""

import hashlib
import json
import mmap
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError, reworded
from triune.coreai.bytecode import read_bytecode

VERSION: Final = (2, 0)
"""The newest version of the format `.aimodel` that can be read."""

LARGEST_PROGRAM_BYTES: Final = 64 << 30
LARGEST_METADATA_BYTES: Final = 16 << 20

_PROGRAM, _HASH, _METADATA = "main.mlirb", "main.hash", "metadata.json"


@dataclass(frozen=True, slots=True)
class Asset:
    """The properties of an asset.

    Attributes:
        path: the path of the folder.
        version: the version of the format, such as "2.0".
        producer: the program that wrote it, such as "coreai-core 1.0.0b3".
        metadata: all metadata of the asset.
        digest: the SHA-256 of the program.
        program_bytes: the size of the program's file.
    """

    path: Path
    version: str
    producer: str
    metadata: Mapping[str, Any]
    digest: bytes
    program_bytes: int


def read_asset(path: Path) -> Asset:
    """Check the parts of an asset. Every message names the file.

    Raises:
        NotFoundError: there is no such folder.
        InvalidArgumentError: a part is missing, truncated or changed, or is not a regular file.
        UnsupportedError: the format has another version, or a file is too large.
    """
    if not path.exists():
        raise NotFoundError(f"there is no '{path}'")
    if not path.is_dir():
        raise InvalidArgumentError(f"'{path.name}' is not a folder, and an .aimodel must be one")
    for name in (_PROGRAM, _HASH, _METADATA):
        _check_file(path, name)
    metadata = _metadata(path)
    version = _version(path, metadata)
    program = path / _PROGRAM
    size = program.stat().st_size
    if size > LARGEST_PROGRAM_BYTES:
        raise UnsupportedError(
            f"'{path.name}/{_PROGRAM}' has {size} bytes; at most {LARGEST_PROGRAM_BYTES} are read; make it smaller"
        )
    digest = _digest(program)
    told = (path / _HASH).read_bytes()[:65]
    if told != digest:
        raise InvalidArgumentError(
            f"'{path.name}/{_PROGRAM}' is not the file whose SHA-256 '{_HASH}' holds: it was changed or cut off; "
            "save or copy the asset again"
        )
    _check_bytecode(path, program)
    producer = metadata.get("producer")
    return Asset(path, version, producer if isinstance(producer, str) else "", metadata, digest, size)


def _check_file(path: Path, name: str) -> None:
    try:
        mode = (path / name).lstat().st_mode
    except OSError as error:
        raise InvalidArgumentError(f"'{path.name}' has no '{name}': the asset is incomplete; copy it again") from error
    if not stat.S_ISREG(mode):
        raise InvalidArgumentError(f"'{path.name}/{name}' is not a regular file; put the file itself there")


def _metadata(path: Path) -> Mapping[str, Any]:
    file = path / _METADATA
    if file.stat().st_size > LARGEST_METADATA_BYTES:
        raise UnsupportedError(f"'{path.name}/{_METADATA}' has more than {LARGEST_METADATA_BYTES} bytes")
    try:
        value = json.loads(file.read_bytes())
    # RecursionError: the JSON is nested too deeply for the parser.
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"'{path.name}/{_METADATA}' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"'{path.name}/{_METADATA}' is not a JSON object")
    return cast("dict[str, Any]", value)


def _version(path: Path, metadata: Mapping[str, Any]) -> str:
    version = metadata.get("assetVersion")
    parts = version.split(".") if isinstance(version, str) else []
    if not isinstance(version, str) or not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidArgumentError(f"'{path.name}/{_METADATA}' has no 'assetVersion' such as \"2.0\": {version!r}")
    if int(parts[0]) != VERSION[0]:
        raise UnsupportedError(
            f"'{path.name}' is of version {version} of the format; {VERSION[0]}.x is read; save it anew"
        )
    return version


def _digest(program: Path) -> bytes:
    with program.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _check_bytecode(path: Path, program: Path) -> None:
    if program.stat().st_size == 0:
        raise InvalidArgumentError(f"'{path.name}/{_PROGRAM}' is empty")
    with program.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        read_bytecode(view)
    except (InvalidArgumentError, UnsupportedError) as error:
        raise reworded(error, f"'{path.name}/{_PROGRAM}': {error}") from error
