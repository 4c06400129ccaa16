"""Lists of tensors of one shape. A list may become longer."""

from typing import Any

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.coreml.interpreter.values import Family, TensorList
from triune.coreml.mil import Array, DType


def make_list(init_length: Any, dynamic_length: Any, elem_shape: tuple[Any, ...], dtype: str) -> TensorList:
    """Make a list of zeros; if a size in `elem_shape` is a symbol (a string), the elements are not set yet."""
    if any(isinstance(size, str) for size in elem_shape):
        first = None
    else:
        first = np.zeros([int(size) for size in elem_shape], DType(dtype).numpy)
    return TensorList((first,) * int(init_length), bool(dynamic_length))


def list_length(ls: TensorList) -> Array:
    """Return the number of elements."""
    return np.array(len(ls.elements), np.int32)


def list_write(ls: TensorList, index: Array, value: Array) -> TensorList:
    """Return the list with one element replaced."""
    return _written(ls, {int(index): value})


def list_scatter(ls: TensorList, indices: Array, value: Array) -> TensorList:
    """Return the list with the elements at `indices` replaced by the rows of `value`."""
    return _written(ls, dict(zip(map(int, indices), value, strict=True)))


def list_read(ls: TensorList, index: Array) -> Array:
    """Return one element."""
    return _element(ls, int(index))


def list_gather(ls: TensorList, indices: Array) -> Array:
    """Return the elements at `indices`, stacked."""
    return np.stack([_element(ls, int(index)) for index in indices])


def _written(ls: TensorList, rows: dict[int, Array]) -> TensorList:
    elements = list(ls.elements)
    for index, row in rows.items():
        if index < 0 or (index >= len(elements) and not ls.is_dynamic):
            raise InvalidArgumentError(f"index {index} of a list of {len(elements)}")
        elements.extend([None] * (index + 1 - len(elements)))
        elements[index] = row
    return TensorList(tuple(elements), ls.is_dynamic)


def _element(ls: TensorList, index: int) -> Array:
    if not 0 <= index < len(ls.elements):
        raise InvalidArgumentError(f"index {index} of a list of {len(ls.elements)}")
    element = ls.elements[index]
    if element is None:
        raise InvalidArgumentError(f"the element {index} is read before it was written")
    return element


FAMILY: Family = {
    "list_gather": list_gather,
    "list_length": list_length,
    "list_read": list_read,
    "list_scatter": list_scatter,
    "list_write": list_write,
    "make_list": make_list,
}
