"""The values that the interpreter computes, and their conversion to the types that a program declares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.coreml.mil import Array, DictionaryType, DType, ListType, StateType, TensorType, Type

# A function that computes an operation: it takes the parameters by their names in MIL, and returns the output, or a
# tuple of outputs.
Compute: TypeAlias = Callable[..., Any]
Family: TypeAlias = Mapping[str, Compute]


@dataclass(slots=True, eq=False)
class Buffer:
    """The array of a state during a call. `write_state` replaces the array by one of the same dtype and shape."""

    array: Array
    type: TensorType


@dataclass(frozen=True, slots=True, eq=False)
class TensorList:
    """A list in MIL: tensors of one shape.

    Attributes:
        elements: the tensors; None for one of unknown shape that is not written yet.
        is_dynamic: whether a write beyond the end makes the list longer.
    """

    elements: tuple[Array | None, ...]
    is_dynamic: bool


Value: TypeAlias = Array | TensorList | Buffer | tuple[Array, ...] | str


_HALVES = (DType.FP16.numpy, DType.BF16.numpy)


def widened(value: Any, *, is_exact: bool = False) -> Any:
    """Convert fp16 and bf16 to fp32, so that an operation rounds only once, when its output is stored.

    With `is_exact`, fp16, bf16 and fp32 become fp64. A scalar string becomes a Python str.
    """
    if not isinstance(value, np.ndarray):
        return value
    array = cast(Array, value)
    if array.dtype == object and array.ndim == 0:
        return array.item()
    if is_exact and array.dtype in (*_HALVES, DType.FP32.numpy):
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype in _HALVES else array


def stored(value: Any, kind: Type, where: str) -> Any:
    """Convert a computed value to its declared type.

    Args:
        value: the value.
        kind: the declared type.
        where: what errors call the value.

    Raises:
        InvalidArgumentError: the rank or a size differs from the declared one.
        UnsupportedError: the value is of another kind: the interpreter does not know this form of the operation.
    """
    match kind:
        case TensorType(dtype, shape):
            array = _cast(np.asarray(value), dtype, where)
            _check_shape(array.shape, shape, where)
            return array
        case ListType(element, _):
            if not isinstance(value, TensorList):
                raise UnsupportedError(f"{where}: declared as a list, but it computes {type(value).__name__}")
            elements = tuple(None if each is None else _cast(each, element.dtype, where) for each in value.elements)
            return TensorList(elements, value.is_dynamic)
        case DictionaryType() | StateType():
            return value


def _cast(array: Array, dtype: DType, where: str) -> Array:
    have, want = _kind(array.dtype), _kind(dtype.numpy)
    if have != want:
        raise UnsupportedError(f"{where}: declared as {dtype.value}, but it computes {array.dtype}")
    return array.astype(dtype.numpy, copy=False)


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype == DType.BF16.numpy:
        return "f"
    return {"u": "i", "U": "O"}.get(dtype.kind, dtype.kind)


def _check_shape(have: tuple[int, ...], want: tuple[int | None, ...] | None, where: str) -> None:
    if want is None:
        return
    if len(have) != len(want) or any(size not in (None, actual) for size, actual in zip(want, have, strict=True)):
        declared = ["?" if size is None else size for size in want]
        raise InvalidArgumentError(f"{where}: declared with shape {declared}, but it computes {list(have)}")
