"""The type of a rule that upgrades an operator, and functions that most rules need."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from onnx import NodeProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.decompose.context import Context

Rule: TypeAlias = Callable[[Context], None]
"""A function that writes nodes of operator set `OPSET` that compute the same as a node of an older set.

Raises UnsupportedError if that is not possible, InvalidArgumentError if the node lacks a required attribute or input.
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
        c: the node, with the types, shapes and constants that it reads.
        inputs: the names of the new inputs; None to keep the old ones.
        op_type: the new operator; "" to keep the old one.
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
    """The rank of a value. Raises UnsupportedError if it is not known."""
    rank = c.values.rank(name)
    if rank is None:
        raise UnsupportedError(f"the rank of '{name}' is not known: give it in the model's value_info")
    return rank


def typed(c: Context, value: float, like: str) -> str:
    """Build a constant scalar with the element type of the value `like`; returns its name."""
    elem_type = c.values.elem_type(like)
    if elem_type:
        return c.build.constant(value, helper.tensor_dtype_to_np_dtype(elem_type))
    return c.build.op("CastLike", c.build.constant(value, "float32"), like)
