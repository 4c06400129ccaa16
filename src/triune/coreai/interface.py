"""The interface of a function of an asset, and checks of the values that are passed to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError
from triune.core.tensors import TensorSpec, format_shape
from triune.coreai.description import Function
from triune.coreai.images import Image
from triune.coreai.limits import Limits, check_limits
from triune.coreai.variants import fits


@dataclass(frozen=True, slots=True)
class Interface:
    """The interface of a function.

    Attributes:
        inputs, outputs, states: their types and shapes, in which -1 is a free dimension.
        limits: for each input, the limits of its free dimensions, if the conversion recorded them.
        images: the image types of the inputs that are images.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict[str, Limits])
    images: Mapping[str, Image] = field(default_factory=dict[str, Image])

    @classmethod
    def of(cls, function: Function, limits: Mapping[str, Limits]) -> "Interface":
        """The interface of a function, from its description (`coreai.description`). Raises UnsupportedError for types
        that no request can carry.
        """
        inputs, outputs, states = (
            tuple(each.spec() for each in features) for features in (function.inputs, function.outputs, function.states)
        )
        images = {each.name: each.image for each in function.inputs}
        known = {name: image for name, image in images.items() if image is not None}
        return cls(inputs, outputs, states, limits, known)

    def check(self, inputs: Mapping[str, Any], where: str) -> dict[str, Array]:
        """Convert values to arrays that the function accepts. Pillow images become their bytes.

        Raises:
            InvalidArgumentError: an input is missing or unknown, or has a wrong type or shape.
        """
        known = {spec.name: spec for spec in self.inputs}
        unknown = sorted(inputs.keys() - known.keys())
        if unknown:
            raise InvalidArgumentError(f"{where} has no input '{unknown[0]}'; it has {sorted(known)}")
        missing = [name for name in known if inputs.get(name) is None]
        if missing:
            raise InvalidArgumentError(f"input '{missing[0]}' of {where} is missing; it is {known[missing[0]]}")
        arrays = {
            name: to_array(f"input '{name}'", spec, self._pixels(name, inputs[name])) for name, spec in known.items()
        }
        for name, limits in self.limits.items():
            if name in arrays:
                check_limits(name, arrays[name].shape, limits)
        return arrays

    def _pixels(self, name: str, value: Any) -> Any:
        image = self.images.get(name)
        return value if image is None else image.pixels(f"input '{name}'", value)

    def fits(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the function accepts inputs of these shapes."""
        known = {spec.name: spec for spec in self.inputs}
        return all(name not in known or fits(array.shape, known[name].shape) for name, array in inputs.items())


def to_array(what: str, spec: TensorSpec, value: Any) -> Array:
    """Convert a value to an array of the type and shape in `spec`.

    Integers and floats of other widths are converted if they fit. Floats beyond the range of fp16 become infinite, as
    in Core ML.

    Raises:
        InvalidArgumentError: a number does not fit, or the value has another kind or shape.
    """
    array = as_array(what, value)
    dtype = spec.datatype.dtype
    if not _is_of_kind(array, dtype):
        raise InvalidArgumentError(f"{what} is of {array.dtype}; it must be of {spec.datatype.value}")
    if not fits(array.shape, spec.shape):
        raise InvalidArgumentError(
            f"{what} is of shape {format_shape(array.shape)}; it must be {format_shape(spec.shape)}"
        )
    if array.size == 0:
        raise InvalidArgumentError(f"{what} is empty: {format_shape(array.shape)}; Core AI has no empty tensors")
    if dtype.kind in "iu" and array.dtype != dtype:
        limits = np.iinfo(cast(Any, dtype))
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidArgumentError(f"{what} has numbers beyond {spec.datatype.value}, {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    if dtype == np.float32 and array.dtype.itemsize > 4 and bool(np.any(np.isinf(converted) & np.isfinite(array))):
        raise InvalidArgumentError(f"{what} has values that fp32 cannot hold: up to {np.abs(array).max()}")
    return converted


def as_array(what: str, value: Any) -> Array:
    """Convert a value to a numpy array. Raises InvalidArgumentError if it is not array-like."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InvalidArgumentError(f"{what} is not an array: {error}") from error


def _is_of_kind(array: Array, dtype: np.dtype[Any]) -> bool:
    given, wanted = array.dtype.kind, dtype.kind
    if wanted in "iu":
        return given in "iu"
    if wanted == "b":
        return given == "b"
    # numpy's `kind` of bf16 is "V", since numpy has no such type of its own.
    return given in "fV"
