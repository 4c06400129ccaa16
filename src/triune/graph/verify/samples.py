"""Create sets of inputs for a verification: the user's arrays, and several kinds of values for the other inputs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from onnx import ModelProto

from triune.core.datatypes import Array
from triune.graph.audit import (
    Free,
    Input,
    InputSet,
    SizedInputs,
    inputs_of_model,
    narrow_inputs,
    revealing_inputs,
    sized_inputs,
)
from triune.graph.conversion.shapes import InputShape

YOURS: Final = "yours"
"""The name of a set of inputs that the user gave."""

_WITHIN_HALF = frozenset(
    ["noise", "ties", "fractions", "masks", "zeros", "signed zeros", "ends", "nearly equal numbers"]
)
"""The kinds of values for which sums and products stay within fp16's range in most models."""


def samples_of(
    model: ModelProto,
    shapes: Mapping[str, InputShape],
    given: Mapping[str, Array],
    samples: Sequence[Mapping[str, Array]] = (),
    *,
    is_half: bool,
) -> list[InputSet]:
    """Create sets of inputs, plain ones first. If there are `samples`, or arrays for all inputs, only these are used.

    Indices are in range, and sizes are within `shapes`. A named dimension that also occurs in one of the user's arrays
    has the size that it has there.

    Args:
        model: the model. Its weights are not read.
        shapes: the limits of the free dimensions, by input.
        given: the user's arrays by input.
        samples: the user's sets of arrays, each with an array for every input that is not in `given`.
        is_half: whether the model or its conversion computes in fewer bits than fp32.

    Raises:
        UnsupportedError: values cannot be made up for an input.
    """
    interface = _interface(model, shapes, given)
    if is_half:
        # Try no extreme values (`ends`) of float inputs, since they are beyond fp16's range.
        interface = [each if each.dtype.kind in "iu" else replace(each, ends=()) for each in interface]
    if samples or not interface:
        return [InputSet(YOURS, {**sample, **given}) for sample in samples or [{}]]
    sets = revealing_inputs(interface, extremes=False)
    chosen = [each for each in sets if not is_half or each.name in _WITHIN_HALF]
    return [replace(each, arrays={**each.arrays, **given}) for each in chosen]


def narrow_samples_of(
    model: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array]
) -> list[InputSet]:
    """Create sets of inputs for which terms cancel in fp16; the arguments are those of `samples_of`.

    There are none if the user gave arrays for all inputs of floats.
    """
    sets = narrow_inputs(_interface(model, shapes, given))
    return [replace(each, arrays={**each.arrays, **given}) for each in sets]


def sized_samples_of(
    model: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array], without: Collection[str] = ()
) -> list[SizedInputs]:
    """Create inputs that can be made larger; the arguments are those of `samples_of`.

    `without` names inputs with a fixed range, such as images. Returns no inputs if there is no other float input to
    make up.
    """
    sets = sized_inputs(_interface(model, shapes, given), without)
    return [replace(each, arrays={**each.arrays, **given}) for each in sets]


def _interface(model: ModelProto, shapes: Mapping[str, InputShape], given: Mapping[str, Array]) -> list[Input]:
    sizes = _sizes_of(model, given)
    return [_with_sizes(each, sizes) for each in inputs_of_model(model, shapes, given.keys())]


def _sizes_of(model: ModelProto, given: Mapping[str, Array]) -> dict[str, int]:
    """The sizes of named dimensions that the user's arrays have."""
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in given:
            names = (dim.dim_param for dim in value.type.tensor_type.shape.dim)
            sizes.update(zip(names, given[value.name].shape, strict=False))
    sizes.pop("", None)
    return sizes


def _with_sizes(each: Input, sizes: Mapping[str, int]) -> Input:
    shapes = (
        tuple(sizes.get(dim.name, dim) if isinstance(dim, Free) else dim for dim in shape) for shape in each.shapes
    )
    return replace(each, shapes=tuple(shapes))
