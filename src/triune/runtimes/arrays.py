"""Numpy arrays as vendor libraries want them."""

from collections.abc import Iterable

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError


def packed(array: Array) -> Array:
    """`array` itself where its elements lie in C order, each aligned to its size; else a copy that does.

    A front end's view of a received buffer starts at any byte: C++ may not read a float at an odd address.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def to_text(name: str, array: Array) -> Array:
    """A BYTES array as an object array of `str`, which is what vendor libraries take for strings.

    Raises:
        InvalidArgumentError: an element is not UTF-8; `name` is the tensor's.
    """
    text: list[str] = []
    for index, element in enumerate(array.flat):
        try:
            text.append(element.decode())
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"input '{name}', element {index} is not UTF-8 ({error.reason} at byte {error.start}); this model's "
                "runtime takes text only: send other bytes encoded, in base64 for example"
            ) from None
    return _objects(text, array.shape)


def to_bytes(array: Array) -> Array:
    """An array of `str` or `bytes` as a BYTES array: objects that are `bytes`, text in UTF-8."""
    elements = (element if isinstance(element, bytes) else str(element).encode() for element in array.flat)
    return _objects(elements, array.shape)


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
    array.reshape(-1)[:] = list(elements)
    return array
