"""Find out whether a model reads the contents of strings, or only copies and compares them."""

from collections.abc import Iterable

from onnx import FunctionProto, ModelProto, NodeProto, TensorProto

_MOVES = frozenset(
    {
        "Compress",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Optional",
        "OptionalGetElement",
        "Pad",
        "Reshape",
        "ReverseSequence",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceInsert",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""Operators that only copy elements, of any type, from their inputs to their outputs."""

_COMPARES = frozenset({"Equal", "OptionalHasElement", "SequenceLength", "Shape", "Size"})
"""Operators whose results depend only on the number of strings, and on which strings are equal."""


def reader_of_text(model: ModelProto) -> str | None:
    """Find the first node that does more with strings than copy and compare them.

    Returns:
        the node's operator and name, for messages; None if there is none. Then strings may be replaced by any bytes, as
        long as different strings stay different.
    """
    graph = model.graph
    text = {each.name for each in graph.input if _is_text(each.type.tensor_type.elem_type)}
    for node in graph.node:
        if not text.intersection(_read_by(node)):
            continue
        is_standard = node.domain in ("", "ai.onnx") and not _is_function(node, model.functions)
        if is_standard and node.op_type in _MOVES:
            text.update(node.output)
        elif not (is_standard and node.op_type in _COMPARES):
            return f"{node.op_type} '{node.name}'" if node.name else node.op_type
    return None


def _is_text(element_type: int) -> bool:
    return element_type == TensorProto.STRING


def _is_function(node: NodeProto, functions: Iterable[FunctionProto]) -> bool:
    return any(each.name == node.op_type and each.domain == node.domain for each in functions)


def _read_by(node: NodeProto) -> set[str]:
    """The names that a node and the nodes of its subgraphs read."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for each in graph.node:
                names |= _read_by(each)
    return names
