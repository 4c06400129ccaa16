"""Numpy arrays as vendor libraries want them."""

import itertools
from collections.abc import Iterable

import numpy as np

from triune.core.datatypes import CHUNK_ELEMENTS, Array
from triune.core.errors import InternalError, InvalidArgumentError

# A code point that Unicode gives to no character. An element that begins with it is marked too.
_MARK = "\U0010ffff"
_MARK_BYTES = _MARK.encode()


def packed(array: Array) -> Array:
    """`array` itself where its elements lie in C order, each aligned to its size; else a copy that does.

    A front end's view of a received buffer starts at any byte: C++ may not read a float at an odd address.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def to_text(name: str, array: Array, reader: str | None) -> Array:
    """A BYTES array as an object array of `str`, which is what vendor libraries take for strings.

    Bytes that are no text, an image for example, reach a model that only moves its strings about: each of its
    characters stands for a byte, behind a mark, and `to_bytes` makes them bytes again.

    Args:
        name: the tensor's name, for messages.
        array: of `bytes`.
        reader: what in the model reads the strings as text (see `graph.text`); None if nothing does.

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
    """An array of `str` or `bytes` as a BYTES array: objects that are `bytes`, text in UTF-8, `to_text`'s undone."""
    return _objects(map(_element, array.flat), array.shape)


def _element(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = str(value)
    return text[1:].encode("latin-1") if text.startswith(_MARK) else text.encode()


def ordered(names: Iterable[str], arrays: Iterable[Array]) -> dict[str, Array]:
    """Name to array, in the order of `names`.

    Raises:
        InternalError: the runtime gave another number of arrays than was asked for.
    """
    try:
        return dict(zip(names, arrays, strict=True))
    except ValueError as error:
        raise InternalError(f"the runtime gave another number of outputs than was asked for: {error}") from error


def _objects(elements: Iterable[object], shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, np.object_)
    flat = array.reshape(-1)
    rest = iter(elements)
    for start in range(0, flat.size, CHUNK_ELEMENTS):
        flat[start : start + CHUNK_ELEMENTS] = list(itertools.islice(rest, CHUNK_ELEMENTS))
    return array
