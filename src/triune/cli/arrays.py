"""Arrays on the command line: read .npy files, and format arrays as text and JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError


def split_pairs(texts: Sequence[str], *, option: str = "--input", form: str = "name=file.npy") -> dict[str, str]:
    """Parse options of the form name=value (name=file for `--input`).

    Raises:
        InvalidArgumentError: an option has another form, or a name is repeated.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise InvalidArgumentError(f"{option} {text!r} is not of the form {form}")
        if name in values:
            raise InvalidArgumentError(f"{option} '{name}' is given twice; give each input once")
        values[name] = value
    return values


def read_array(name: str, file: str) -> Array:
    """Read a .npy file. The array has this machine's byte order; strings become bytes objects.

    Raises:
        InvalidArgumentError: the file cannot be read, or is not an array.
    """
    # numpy before 2.4 has no type hints for this function.
    numpy_format: Any = np.lib.format
    try:
        with Path(file).open("rb") as stream:
            array: Array = numpy_format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:
        raise InvalidArgumentError(
            f"cannot read input '{name}' from '{file}': {error}; give one array, written by numpy.save"
        ) from error
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(np.object_) if array.dtype.kind == "S" else array


def as_numbers(array: Array) -> list[object]:
    """The elements as JSON numbers. NaN, Infinity and -Infinity are strings, as in protobuf's JSON."""
    numbers: list[object] = array.ravel().tolist()
    if array.dtype.kind == "f":
        for index in np.flatnonzero(~np.isfinite(array)):
            value = numbers[index]
            numbers[index] = "NaN" if value != value else "Infinity" if value == np.inf else "-Infinity"
    return numbers


def preview(array: Array) -> str:
    """Format the first and the last numbers."""
    return np.array2string(array.ravel(), threshold=6, precision=4)
