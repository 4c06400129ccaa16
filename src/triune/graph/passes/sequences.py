"""Replace ONNX sequences by their tensors, if the length of the sequence and the index of each read are known."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of

_MAKERS = ("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence", "Identity")
_READERS = ("SequenceAt", "SequenceLength", "ConcatFromSequence")

SEQUENCE_OPS = frozenset([*_MAKERS, *_READERS]) - {"Identity"}
"""The operators that make or read a sequence."""


class Sequences(GraphPass):
    """Given a sequence of known length (SequenceConstruct, SequenceInsert, SplitToSequence), and nodes that read it at
    constant indices (SequenceAt, SequenceLength, ConcatFromSequence). Result: the readers use the tensors directly.

    The node that makes the sequence stays, since other nodes may read it. `Tidy` removes it if none does.
    """

    name = "sequences"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Let the nodes in `model` that read a sequence read its tensors instead; `model` is changed.

        New values have no types yet: run `Infer` afterwards.
        """
        _resolve(model.graph, None, {}, Names(model.graph))
        return model


def _resolve(graph: GraphProto, outer: Values | None, known: Mapping[str, Sequence[str]], names: Names) -> None:
    values = Values(graph, outer)
    sequences = dict(known)
    nodes: list[NodeProto] = []
    given = {name for node in graph.node for name in node.output}
    earlier = _prefixes(graph)
    is_changed = False
    for node in graph.node:
        for subgraph in subgraphs_of(node):
            _resolve(subgraph, values, sequences, names)
        name = node.output[0] if node.output else ""
        prefix = f"{name}/{node.op_type}"
        build = Builder(prefix if prefix in earlier else names.prefix(prefix))
        is_read = False
        if node.domain in ("", "ai.onnx") and node.op_type in _MAKERS:
            made = _tensors_of(node, values, sequences, build)
            if made is not None:
                sequences[name] = made
            if any(each.output[0] in given for each in build.nodes):
                # An earlier run of the pass built the Split for this node already. The node itself stays because it is
                # still read.
                build.nodes.clear()
        elif node.domain in ("", "ai.onnx") and node.op_type in _READERS and node.input[0] in sequences:
            is_read = _read(node, values, sequences[node.input[0]], build)
        nodes += build.nodes if is_read else [*build.nodes, node]
        is_changed = is_changed or bool(build.nodes)
    if is_changed:
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def _prefixes(graph: GraphProto) -> set[str]:
    """The prefixes of names from earlier runs of this pass. A run with the prefix P named its nodes and their outputs
    `P/...`.
    """
    starts = [(node.name, name.rpartition("/")[0]) for node in graph.node for name in node.output[:1]]
    return {start for node_name, start in starts if start and node_name.startswith(f"{start}/")}


def _tensors_of(
    node: NodeProto, values: Values, sequences: Mapping[str, Sequence[str]], build: Builder
) -> Sequence[str] | None:
    """The names of the tensors in the sequence that a node makes; None if they are not known."""
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return list(node.input)
    if node.op_type == "SplitToSequence":
        return _split(node, values, build)
    given = sequences.get(node.input[0])
    if given is None or node.op_type == "Identity":
        return given
    position_input = 2 if node.op_type == "SequenceInsert" else 1
    is_insert = node.op_type == "SequenceInsert"
    position = len(given) if is_insert else len(given) - 1
    if len(node.input) > position_input and node.input[position_input]:
        found = _position(node.input[position_input], values, len(given))
        if found is None or not 0 <= found < len(given) + is_insert:
            return None
        position = found
    return (
        [*given[:position], node.input[1], *given[position:]]
        if is_insert
        else [*given[:position], *given[position + 1 :]]
    )


def _position(name: str, values: Values, length: int) -> int | None:
    array = values.constant(name)
    if array is None:
        return None
    position = int(array.reshape(-1)[0])
    return position + length if position < 0 else position


def _split(node: NodeProto, values: Values, build: Builder) -> Sequence[str] | None:
    shape, attributes = values.shape(node.input[0]), attributes_of(node)
    if shape is None:
        return None
    axis: int = attributes.get("axis", 0) % len(shape)
    size = shape[axis]
    sizes: list[int] | None = None
    if len(node.input) > 1 and node.input[1]:
        array = values.constant(node.input[1])
        if array is None:
            return None
        sizes = [int(each) for each in array.reshape(-1)]
        if array.ndim == 0 and size is not None:
            step = sizes[0]
            sizes = [min(step, size - start) for start in range(0, size, step)]
        elif array.ndim == 0:
            return None
    elif size is not None:
        sizes = [1] * size
    if not sizes:
        return None
    parts = build.ops("Split", len(sizes), node.input[0], build.constant(sizes, np.int64), axis=axis)
    if (len(node.input) > 1 and node.input[1]) or attributes.get("keepdims", 1):
        return parts
    return [build.op("Squeeze", part, build.ints(axis)) for part in parts]


def _read(node: NodeProto, values: Values, tensors: Sequence[str], build: Builder) -> bool:
    """Build nodes that compute the output of a SequenceAt, SequenceLength or ConcatFromSequence from the tensors.

    Returns:
        False, with no node built, if the index is not known or out of range, or if there is no tensor to concatenate.
    """
    attributes = attributes_of(node)
    if node.op_type == "SequenceLength":
        build.put("Identity", [build.constant(len(tensors), np.int64)], [node.output[0]])
        return True
    if node.op_type == "SequenceAt":
        position = _position(node.input[1], values, len(tensors))
        if position is None or not 0 <= position < len(tensors):
            return False
        build.put("Identity", [tensors[position]], [node.output[0]])
        return True
    if not tensors:
        return False
    axis = attributes["axis"]
    parts = list(tensors)
    if attributes.get("new_axis", 0):
        parts = [build.op("Unsqueeze", tensor, build.ints(axis)) for tensor in tensors]
    build.put("Concat", parts, [node.output[0]], axis=axis)
    return True
