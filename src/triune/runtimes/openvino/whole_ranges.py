"""Finds the ranges of the integers that values of an OpenVINO graph can have."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from triune.core.datatypes import Array

Range: TypeAlias = tuple[int, int]
"""The lowest and the highest number that the elements of a value can be."""

_TYPES: Final = {
    "u4": (0, 15),
    "i4": (-8, 7),
    "u8": (0, 255),
    "i8": (-128, 127),
    "u16": (0, 65535),
    "i16": (-32768, 32767),
    "boolean": (0, 1),
}

INT32: Final[Range] = (-(1 << 31), (1 << 31) - 1)
"""The range that is assumed where nothing more is known: the plugin computes integers in 32 bits."""

_HAND_ON: Final = frozenset(
    {"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Broadcast", "Gather", "StridedSlice", "Slice", "Identity"}
)
"""Operators whose results are elements of their first operand."""

_DEEPEST: Final = 8
"""How many operators are followed back from a value, at most, to find its range."""


_IN_FLOATS: Final = frozenset(
    {
        *("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"),
        *("Divide", "Mod", "FloorMod", "Clamp", "Power", "SquaredDifference", "ReduceMax", "ReduceMin", "Interpolate"),
    }
)
"""Operators of integers that the CPU plugin computes in fp32 (measured with 2026.4.1), in addition to sums and
products.
"""

_INDEXED: Final = frozenset({"Gather", "GatherElements", "GatherND"})
"""Operators whose first operand is indexed by another operand: the result has only elements of the first."""


def inputs_in_floats(model: Any) -> Mapping[str, str]:
    """The model's integer inputs with which an operator computes in fp32, by name, each with a text that names the
    operator. fp32 represents integers exactly only up to 2^24.
    """
    found: dict[str, str] = {}
    holds: dict[tuple[str, int], set[str]] = {}
    for node in model.get_ordered_ops():
        name = node.get_type_name()
        if name == "Parameter":
            if node.get_output_element_type(0).is_integral():
                holds[node.get_name(), 0] = set(node.output(0).get_names())
            continue
        if name == "ShapeOf":
            continue
        read = node.input_values()[: 1 if name in _INDEXED else None]
        inputs = set[str]().union(*(holds.get((each.get_node().get_name(), each.get_index()), ()) for each in read))
        if name in _IN_FLOATS:
            found = {**dict.fromkeys(inputs, f"{name} '{node.get_friendly_name()}'"), **found}
        for at, output in enumerate(node.outputs()):
            if inputs and output.get_element_type().is_integral():
                holds[node.get_name(), at] = inputs
    return found


def largest_of(output: Any) -> int:
    """The largest distance from 0 that an element of a value may have."""
    return max(abs(each) for each in range_of(output))


def range_of(output: Any, depth: int = _DEEPEST) -> Range:
    """The interval of the numbers that the elements of a value may be."""
    type_name = output.get_element_type().get_type_name()
    if type_name in _TYPES:
        return _TYPES[type_name]
    node = output.get_node()
    name = node.get_type_name()
    if not depth:
        return INT32
    if name == "Constant":
        array = node.data
        return (int(array.min()), int(array.max())) if array.size else (0, 0)
    if name == "Convert":
        is_integer = node.get_input_element_type(0).is_integral()
        return range_of(node.input_value(0), depth - 1) if is_integer else INT32
    if name in _HAND_ON:
        return range_of(node.input_value(0), depth - 1)
    if name in ("Add", "Subtract"):
        (low, high), (least, most) = (range_of(node.input_value(at), depth - 1) for at in (0, 1))
        found = (low + least, high + most) if name == "Add" else (low - most, high - least)
        return found if INT32[0] <= found[0] and found[1] <= INT32[1] else INT32
    return INT32


def constant_of(output: Any, depth: int = _DEEPEST) -> Array | None:
    """The elements of a value that is computed from constants, as INT64. None if the value is not computed from
    constants alone, or by an operator that is not supported here.
    """
    node = output.get_node()
    name = node.get_type_name()
    if name == "Constant":
        array = node.data
        return array.astype(np.int64) if array.dtype.kind in "iub" else None
    if not depth or name not in ("Convert", "Subtract", "Reshape", "Unsqueeze"):
        return None
    operands = [constant_of(node.input_value(at), depth - 1) for at in range(node.get_input_size())]
    shape = node.get_output_partial_shape(0)
    first = operands[0]
    if first is None or not node.get_input_element_type(0).is_integral():
        return None
    if name == "Convert":
        return first
    if name == "Subtract":
        return None if operands[1] is None else first - operands[1]
    return first.reshape(list(shape.to_shape())) if shape.is_static else None
