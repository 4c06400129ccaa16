"""Conversion of numpy arrays for vendor libraries."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from triune.core.datatypes import CHUNK_ELEMENTS, Array
from triune.core.errors import InternalError, InvalidArgumentError

# This Unicode noncharacter marks strings that represent bytes. Strings that begin with it are converted to bytes first.
_MARK = "\U0010ffff"
_MARK_BYTES = _MARK.encode()

_Value = TypeVar("_Value")


def packed(array: Array) -> Array:
    """Return `array` if it is C-contiguous and aligned, else a copy that is.

    A front end's view of a received buffer may start at any byte, and C++ must not read a float at an odd address.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def to_text(name: str, array: Array, reader: str | None) -> Array:
    """Convert a BYTES array to an object array of `str`, which vendor libraries need for strings.

    A model that only moves its strings, and does not read them, may also get bytes that are not UTF-8, such as images.
    These become a string with a mark and one character for each byte, which `to_bytes` decodes.

    Args:
        name: the tensor's name, for messages.
        array: an array of `bytes`.
        reader: the operator that reads the strings as text (see `graph.text`); None if there is none.

    Raises:
        InvalidArgumentError: an element is not UTF-8, and the model reads it.
    """
    text: list[str] = []
    for index, element in enumerate(array.flat):
        try:
            if reader is None and element.startswith(_MARK_BYTES):
                text.append(_MARK + element.decode("latin-1"))
            else:
                text.append(element.decode())
        except UnicodeDecodeError as error:
            if reader is None:
                text.append(_MARK + element.decode("latin-1"))
                continue
            raise InvalidArgumentError(
                f"input '{name}', element {index} is not UTF-8 ({error.reason} at byte {error.start}); this model "
                f"reads its strings as text ({reader}): send other bytes encoded, in base64 for example"
            ) from None
    return _objects(text, array.shape)


def to_bytes(array: Array) -> Array:
    """Convert an array of `str` or `bytes` to a BYTES array, with text in UTF-8. The inverse of `to_text`."""
    return _objects(map(_element, array.flat), array.shape)


def _element(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = str(value)
    return text[1:].encode("latin-1") if text.startswith(_MARK) else text.encode()


def ordered(names: Sequence[str], values: Sequence[_Value]) -> dict[str, _Value]:
    """Combine names and a runtime's values to a dictionary.

    Raises:
        InternalError: the runtime returned another number of values than requested.
    """
    if len(values) != len(names):
        raise InternalError(f"the runtime gave {len(values)} outputs, and {len(names)} were asked for")
    # `strict` is left out: the lengths were compared above, and it takes as long as the rest of the function.
    return dict(zip(names, values))  # noqa: B905


def _objects(elements: Iterable[object], shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, np.object_)
    flat = array.reshape(-1)
    rest = iter(elements)
    for start in range(0, flat.size, CHUNK_ELEMENTS):
        flat[start : start + CHUNK_ELEMENTS] = list(itertools.islice(rest, CHUNK_ELEMENTS))
    return array
