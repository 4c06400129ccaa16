"""Shapes of inputs, as users give them in Python."""

from collections.abc import Sequence
from typing import TypeAlias

from triune.core.errors import InvalidArgumentError
from triune.graph.conversion.shapes import InputShape, parse_shapes

Shape: TypeAlias = str | Sequence[int | tuple[int, int]] | InputShape
"""A shape such as `(1, (1, 512))`: each dimension is a size, or a minimum and a maximum. Or the command line's text:
"1,1..512" for the same, "1,128|1,512" for one of several shapes."""


def input_shape(name: str, shape: Shape) -> InputShape:
    """The shape of an input. Raises InvalidArgumentError if it cannot be read."""
    if isinstance(shape, InputShape):
        return shape
    if isinstance(shape, str):
        return parse_shapes([f"{name}={shape}"])[name]
    dims: list[str] = []
    for dim in shape:
        match dim:
            case (int() as low, int() as high):
                dims.append(f"{low}..{high}")
            case int():
                dims.append(str(dim))
            case _:
                raise InvalidArgumentError(
                    f"dimension {dim!r} of the shape of '{name}' is neither a size nor a range (low, high); of "
                    f"several shapes write '{name}': '1,128|1,512'"
                )
    return parse_shapes([f"{name}={','.join(dims)}"])[name]
