"""Translates states and output values of a Core ML model to the server's tensors; `coreml.signature` translates the
interface.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.tensors import Signature, TensorSpec
from triune.coreml import signature
from triune.coreml.description import FunctionDescription
from triune.coreml.package import Package
from triune.coreml.raising import new_state
from triune.runtimes.coreml.options import FUNCTION, STATES, Settings


def signature_of(package: Package, settings: Settings) -> Signature:
    """The inputs and outputs of a function of a package (`coreml.signature.signature_of`). An explicit state NAME
    becomes the optional input NAME and the output "NAME/new", as in a conversion to ONNX.

    Raises:
        InvalidArgumentError: there is no such function, or the option asks for explicit states and there are none.
        UnsupportedError: the function has states that the option does not make explicit, or a feature is not a tensor.
    """
    functions = package.description.functions
    name = package.description.default_function if settings.function is None else settings.function
    if name not in functions:
        known = ", ".join(f"'{each}'" for each in functions)
        raise InvalidArgumentError(
            f"'{package.name}' has no function '{name}': parameter '{FUNCTION}' may name {known}"
        )
    described = functions[name]
    _check_states(described, settings, package.name)
    plain = signature.signature_of(package, name)
    if not described.states:
        return plain
    states = signature.states_of(package, name)
    news = tuple(replace(spec, name=new_state(spec.name), is_optional=False, is_state=False) for spec in states)
    return replace(plain, inputs=(*plain.inputs, *states), outputs=(*plain.outputs, *news))


def to_output(spec: TensorSpec, value: Any, *, is_scalar: bool = False) -> Array:
    """Convert an output of `coreml.Model.predict` to the array that its specification describes.

    Args:
        spec: the output's specification.
        value: an array, a label, or probabilities by label.
        is_scalar: whether the output has rank 0, for which Core ML returns a vector of one element.
    """
    if isinstance(value, str):
        array: Array = np.empty(1, np.object_)
        array[0] = value.encode()
        return array
    if isinstance(value, dict):
        return np.array(list(cast("dict[object, float]", value).values()), np.float64)
    array = np.atleast_1d(np.asarray(value)).astype(spec.datatype.dtype, copy=False)
    return array.reshape(()) if is_scalar else array


def _check_states(described: FunctionDescription, settings: Settings, package: str) -> None:
    names = ", ".join(f"'{feature.name}'" for feature in described.states)
    if described.states and not settings.has_explicit_states:
        raise UnsupportedError(
            f"function '{described.name}' of '{package}' keeps the states {names} between calls, and a request is one "
            f"call: set parameter '{STATES}' to 'explicit', and they are inputs and outputs, which the client keeps"
        )
    if settings.has_explicit_states and not described.states:
        raise InvalidArgumentError(
            f"parameter '{STATES}' is given, but function '{described.name}' of '{package}' has no states: leave it out"
        )
    taken = {feature.name for feature in described.outputs} & {new_state(feature.name) for feature in described.states}
    if taken:
        raise UnsupportedError(
            f"output '{taken.pop()}' of '{package}' has the name that a state's new value would have"
        )
