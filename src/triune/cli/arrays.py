"""Arrays on the command line: read .npy files, and format arrays as text and JSON."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.numpy_files import read_npy


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
    array = read_npy(Path(file), f"input '{name}'")
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
    """Format an array as text with its first and last numbers, as numpy does for large arrays."""
    return np.array2string(array.ravel(), threshold=6, precision=4)


def read_constants(texts: Sequence[str]) -> dict[str, Array]:
    """Read options of the form input=3, input=1,2 or input=file.npy. Raises InvalidArgumentError for other forms."""
    pairs = split_pairs(texts, option="--constant", form="input=1,2 or input=file.npy")
    return {name: _constant(name, body) for name, body in pairs.items()}


def _constant(name: str, body: str) -> Array:
    """Parse a constant: one number is a scalar, several are a vector, and a .npy file is its array."""
    if body.endswith(".npy"):
        return read_array(name, body)
    try:
        numbers = [float(each) if "." in each or "e" in each else int(each) for each in body.split(",")]
    except ValueError as error:
        raise InvalidArgumentError(
            f"the constant for input '{name}' cannot be read: {error}; write 3, 1,2 or a .npy file"
        ) from error
    return np.array(numbers[0] if len(numbers) == 1 else numbers)
