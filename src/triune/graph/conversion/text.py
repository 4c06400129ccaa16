"""Remove outputs that programs cannot have: strings and dictionaries, as classifiers of scikit-learn have them."""

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from triune.graph.values import attributes_of

_CLASSICAL = "ai.onnx.ml"
_LABELS = ("classlabels_strings", "classlabels_ints", "classlabels_int64s")


def numbers_of(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """Make a copy of the model without outputs that are strings or dictionaries; returns it with notes for the user.

    The dictionary of a ZipMap is replaced by the tensor of scores (N, classes). Outputs that are strings are removed,
    unless all are.

    Args:
        model: the model; it is not changed.

    Returns:
        the copy, or the model itself if it has no such outputs; and the notes.
    """
    maps = [node for node in model.graph.node if _is(node, "ZipMap")]
    texts = [value.name for value in model.graph.output if value.type.tensor_type.elem_type == TensorProto.STRING]
    if len(texts) == len(model.graph.output):
        texts = []
    if not maps and not texts:
        return model, []
    copy = ModelProto()
    copy.CopyFrom(model)
    notes = [_unzip(copy.graph, node) for node in copy.graph.node if _is(node, "ZipMap")]
    notes += [_text_note(copy.graph, name) for name in texts]
    kept = [value for value in copy.graph.output if value.name not in texts]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy, notes


def _is(node: NodeProto, *op_types: str) -> bool:
    return node.domain == _CLASSICAL and node.op_type in op_types


def _labels(node: NodeProto) -> Sequence[str | int]:
    # Read only the attributes with labels: others of a tree ensemble have an element for each tree node, so that
    # reading them would be slow.
    own = attributes_of(NodeProto(attribute=[each for each in node.attribute if each.name in _LABELS]))
    given: list[list[str | int]] = [each for each in own.values() if each]
    return given[0] if given else []


def _listed(labels: Sequence[str | int]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_MOST_SHOWN])
    return shown if len(labels) <= _MOST_SHOWN else f"{shown} and {len(labels) - _MOST_SHOWN} more"


_MOST_SHOWN = 20


def _unzip(graph: GraphProto, node: NodeProto) -> str:
    """Replace a ZipMap by Identity; returns a note for the user."""
    labels, name, output = _labels(node), node.name or node.output[0], node.output[0]
    node.CopyFrom(helper.make_node("Identity", list(node.input), [output], name=node.name))
    for values in (graph.output, graph.value_info):
        for value in values:
            if value.name == output:
                value.type.CopyFrom(_scores(output, len(labels)).type)
    return (
        f"{_CLASSICAL}:ZipMap '{name}': programs have no dictionaries; output '{output}' is the tensor of scores, a "
        f"column for each class in this order: {_listed(labels)}"
    )


def _scores(name: str, count: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, count])


def _text_note(graph: GraphProto, name: str) -> str:
    maker = next((node for node in graph.node if name in node.output), None)
    labels: Sequence[str | int] = [] if maker is None else _labels(maker)
    order = f"; the classes, in the order of the scores: {_listed(labels)}" if labels else ""
    return f"output '{name}' is text, which programs do not have, and is left out{order}"
