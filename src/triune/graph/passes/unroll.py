"""Replace a Loop that makes or reads a sequence, and runs a known number of times, by copies of its body."""

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names, defined_names, rename
from triune.graph.passes.run import GraphPass
from triune.graph.passes.sequences import SEQUENCE_OPS
from triune.graph.passes.steps import num_steps
from triune.graph.values import Values, attributes_of, subgraphs_of

_MOST_STEPS = 64
_MOST_NODES = 4096
"""A Loop that would become more nodes than this stays."""


class Unroll(GraphPass):
    """Given a Loop that makes or reads a sequence, whose number of steps follows from constants. Result: a copy of its
    body for each step, in which `Sequences` finds the tensors of the sequence.

    Core ML and Core AI have loops, but no sequences. Other loops stay.
    """

    name = "unroll"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace Loops over sequences in `model`, in place, by copies of their bodies.

        New values have no types yet: run `Infer` afterwards.
        """
        _unroll(model.graph, None, Names(model.graph))
        return model


def _unroll(graph: GraphProto, outer: Values | None, names: Names) -> None:
    values = Values(graph, outer)
    nodes: list[NodeProto] = []
    is_changed = False
    for node in graph.node:
        for inner in subgraphs_of(node):
            _unroll(inner, values, names)
        steps = _num_steps(node, values) if node.op_type == "Loop" and node.domain in ("", "ai.onnx") else None
        if steps is None:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        is_changed = True
        nodes += _copies(node, steps, names)
    if is_changed:
        del graph.node[:]
        graph.node.extend(nodes)


def _num_steps(loop: NodeProto, values: Values) -> int | None:
    """The number of steps of a Loop with sequences; None if it is not known, or if the Loop must not be unrolled."""
    body: GraphProto = attributes_of(loop)["body"]
    if not _has_sequences(body):
        return None
    steps = num_steps(loop, values, _MOST_STEPS)
    num_scanned = len(body.output) - len(body.input) + 1
    # A Loop of 0 steps with scan outputs stays, since these would be empty.
    if steps is None or len(body.node) * steps > _MOST_NODES or (num_scanned and not steps):
        return None
    return steps


def _has_sequences(graph: GraphProto) -> bool:
    """Whether a node of a body, or of a branch in it, makes or reads a sequence."""
    return any(
        (node.op_type in SEQUENCE_OPS and node.domain in ("", "ai.onnx"))
        or any(map(_has_sequences, subgraphs_of(node)))
        for node in graph.node
    )


def _copies(loop: NodeProto, steps: int, names: Names) -> list[NodeProto]:
    """The nodes of all steps, each a copy of the body, and those that compute the outputs of the Loop."""
    body: GraphProto = attributes_of(loop)["body"]
    num_carried = len(body.input) - 2
    carried, scanned = list(loop.input[2:]), [list[str]() for _ in body.output[1 + num_carried :]]
    constants = {
        tensor.name: names.value(f"{loop.name or loop.output[0]}/{tensor.name}") for tensor in body.initializer
    }
    nodes = [helper.make_node("Constant", [], [constants[each.name]], value=each) for each in body.initializer]
    own = list(defined_names(body.node))
    for step in range(steps):
        prefix = names.prefix(f"{loop.name or loop.output[0]}/step{step}")
        renamed = {**constants, **{name: f"{prefix}/{name}" for name in own}}
        for value in body.input[:2]:
            renamed[value.name] = f"{prefix}/{value.name}"
        nodes.append(helper.make_node("Constant", [], [renamed[body.input[0].name]], value_int=step))
        truth = helper.make_tensor(renamed[body.input[1].name], 9, [], [True])
        nodes.append(helper.make_node("Constant", [], [renamed[body.input[1].name]], value=truth))
        renamed.update((value.name, name) for value, name in zip(body.input[2:], carried, strict=True))
        for node in body.node:
            copy = NodeProto.FromString(node.SerializeToString())
            rename(copy, renamed, prefix)
            nodes.append(copy)
        results = [renamed.get(value.name, value.name) for value in body.output[1:]]
        carried = results[:num_carried]
        for each, name in zip(scanned, results[num_carried:], strict=True):
            each.append(name)
    for name, result in zip(loop.output[:num_carried], carried, strict=False):
        if name:
            nodes.append(helper.make_node("Identity", [result], [name]))
    if any(loop.output[num_carried:]):
        axis = names.value(f"{loop.output[0] or loop.name}/axis")
        nodes.append(helper.make_node("Constant", [], [axis], value_ints=[0]))
        for output, parts in zip(loop.output[num_carried:], scanned, strict=False):
            rows = [names.value(f"{part}/row") for part in parts]
            nodes += [helper.make_node("Unsqueeze", [part, axis], [row]) for part, row in zip(parts, rows, strict=True)]
            nodes.append(helper.make_node("Concat", rows, [output], axis=0))
    return nodes
