"""Find inputs and outputs of a model that no program can have."""

from collections.abc import Container

from onnx import ValueInfoProto

from triune.core.errors import UnsupportedError
from triune.graph.conversion.shapes import kind_of


def passed_type(value: ValueInfoProto, role: str, types: Container[int], runtime: str) -> int:
    """The element type of an input or output.

    Args:
        value: the input or output of a narrowed graph.
        role: "input" or "output".
        types: the TensorProto.DataTypes that programs take and give: FLOAT, FLOAT16, INT32 and BOOL.
        runtime: the target's name for messages: "Core ML".

    Raises:
        UnsupportedError: it is not a tensor, or of another type.
    """
    elem_type = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or elem_type not in types:
        raise UnsupportedError(
            f"{role} '{value.name}' is {kind_of(value)}; {runtime} passes FLOAT, FLOAT16, INT32 and BOOL"
        )
    return elem_type


def empty_input(name: str, runtime: str) -> UnsupportedError:
    """The error for an input with a dimension of size 0 that some node reads."""
    return UnsupportedError(
        f"input '{name}' is empty, and {runtime} has no empty tensors; remove it, or give its sizes with --shape where "
        "0 stands for any size"
    )
