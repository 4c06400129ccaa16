"""Convert a caller's value to the array that an input needs."""

from typing import Any, cast

import numpy as np

from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import TensorSpec, describe

_FLOATS = frozenset({DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64})


def as_array(spec: TensorSpec, value: Any, *, converts_arrays: bool = False) -> Array:
    """Convert a value to an array for an input.

    Args:
        spec: the input's specification.
        value: an array; numbers, strings or lists of them; or, for an image input of shape (height, width) or
            (height, width, 3), a Pillow image.
        converts_arrays: whether to cast arrays of other datatypes, too, if no value changes.

    Raises:
        InvalidArgumentError: the value has another shape or datatype, or the cast would change a value.
    """
    if hasattr(value, "convert") and hasattr(value, "mode"):
        # Recognize Pillow images without importing Pillow.
        value = np.asarray(value.convert(_mode(spec)))
    is_taken = isinstance(value, np.ndarray) and (
        not converts_arrays or DataType.of(cast("Array", value)) is spec.datatype
    )
    array = cast("Array", value) if is_taken else _converted(spec, value)
    fits = not spec.has_rank or (
        len(spec.shape) == array.ndim
        and all(size in (-1, have) for have, size in zip(array.shape, spec.shape, strict=True))
    )
    if DataType.of(array) is not spec.datatype or not fits:
        raise InvalidArgumentError(f"input '{spec.name}' is {describe(array)}; the model takes {spec}")
    return array


def _mode(spec: TensorSpec) -> str:
    if spec.datatype is DataType.UINT8 and len(spec.shape) == 3 and spec.shape[2] == 3:
        return "RGB"
    if spec.datatype is DataType.UINT8 and len(spec.shape) == 2:
        return "L"
    if spec.datatype is DataType.FP16 and len(spec.shape) == 2:
        return "F"
    raise InvalidArgumentError(f"input '{spec.name}' is a picture; the model takes {spec}: make an array of it")


def _converted(spec: TensorSpec, value: Any) -> Array:
    """Convert Python numbers, strings and lists to an array of the input's datatype."""
    what = f"input '{spec.name}'"
    try:
        given = np.asarray(value, object if spec.datatype is DataType.BYTES else None)
    except ValueError as error:
        raise InvalidArgumentError(f"{what}: the lists are not of one length each: {error}") from error
    if spec.datatype is DataType.BYTES:
        elements = [each.encode() if isinstance(each, str) else each for each in given.ravel().tolist()]
        if not all(isinstance(each, bytes) for each in elements):
            raise InvalidArgumentError(f"{what} holds what is neither text nor bytes; the model takes {spec}")
        texts = np.empty(given.shape, np.object_)
        texts.reshape(-1)[:] = elements
        return texts
    kinds = "b" if spec.datatype is DataType.BOOL else "iuf"
    if spec.datatype is DataType.INT32:
        # Core ML programs have no BOOL inputs: an ONNX model's BOOL input becomes INT32, so booleans are accepted for
        # it.
        kinds += "b"
    if given.dtype.kind not in kinds:
        raise InvalidArgumentError(f"{what} is made of {given.dtype.name}; the model takes {spec}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(spec.datatype.dtype)
        # A Python float may be rounded to fp32, as in numpy. An integer must be exact.
        is_float = given.dtype.kind == "f" and spec.datatype in _FLOATS
        if is_float:
            is_kept = np.isfinite(array.astype(np.float64)) == np.isfinite(given)
        else:
            is_kept = array.astype(object) == given.astype(object)
    if not np.all(is_kept):
        lost = given[~np.asarray(is_kept)].ravel()[0]
        raise InvalidArgumentError(
            f"{what} holds {lost}, which {spec.datatype.value} does not hold; the model takes {spec}"
        )
    return array
