"""The type of an upgrade rule, and functions that most rules need."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from onnx import NodeProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.decompose.context import Context

Rule: TypeAlias = Callable[[Context], None]
"""A function that writes nodes of the newest operator set that compute the same as a node of an older set.

Raises UnsupportedError where that is not possible, InvalidArgumentError where the node lacks a required attribute or
input.
"""


def rewrite(
    c: Context,
    inputs: Sequence[str] | None = None,
    *,
    op_type: str = "",
    without: Collection[str] = (),
    **attributes: Any,
) -> None:
    """Write a changed copy of the node, with the same name and outputs.

    Args:
        c: the node and what is known of its values.
        inputs: its new inputs; None to keep them.
        op_type: its new operator; "" to keep it.
        without: names of attributes to remove.
        attributes: attributes to add or change.
    """
    node = NodeProto.FromString(c.node.SerializeToString())
    node.op_type, node.domain = op_type or node.op_type, ""
    if inputs is not None:
        del node.input[:]
        node.input.extend(inputs)
        while node.input and not node.input[-1]:
            del node.input[-1]
    kept = [attribute for attribute in c.node.attribute if attribute.name not in {*without, *attributes}]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    c.build.nodes.append(node)


def required(c: Context, name: str) -> Any:
    """The value of a required attribute. Raises InvalidArgumentError if the node lacks it."""
    if name not in c.attributes:
        raise InvalidArgumentError(f"it has no attribute '{name}'")
    return c.attributes[name]


def rank_of(c: Context, name: str) -> int:
    """The rank of a value, which must be known."""
    rank = c.values.rank(name)
    if rank is None:
        raise UnsupportedError(f"the rank of '{name}' is not known: give it in the model's value_info")
    return rank


def typed(c: Context, value: float, like: str) -> str:
    """A constant scalar of the element type of another value."""
    elem_type = c.values.elem_type(like)
    if elem_type:
        return c.build.constant(value, helper.tensor_dtype_to_np_dtype(elem_type))
    return c.build.op("CastLike", c.build.constant(value, "float32"), like)
