"""Replace a Loop that carries a sequence, and runs a known number of times, by copies of its body."""

from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.names import Names, defined_names, rename
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, subgraphs_of

_MOST_STEPS = 64
_MOST_NODES = 4096
"""A Loop of more steps, or that would become more nodes, stays."""


class Unroll(GraphPass):
    """Given a Loop that carries a sequence, of a constant trip count and a condition that stays true. Result: a copy of
    its body for each step, in which `Sequences` finds the tensors of the sequence.

    Core ML and Core AI have loops, but no sequences. Other loops stay.
    """

    name = "unroll"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`. New values have no types yet: run `Infer` afterwards."""
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
    """How often a Loop that carries a sequence runs; None if it is not known, or the Loop is to stay."""
    body: GraphProto = attributes_of(loop)["body"]
    if not any(value.type.HasField("sequence_type") for value in body.input[2:]):
        return None
    trips = values.constant(loop.input[0]) if loop.input[0] else None
    condition = values.constant(loop.input[1]) if len(loop.input) > 1 and loop.input[1] else None
    if trips is None or (len(loop.input) > 1 and loop.input[1] and condition is None):
        return None
    steps = int(trips.reshape(-1)[0])
    if condition is not None and not condition.reshape(-1)[0]:
        steps = 0
    num_scanned = len(body.output) - len(body.input) + 1
    # Of no step, the scanned outputs would be empty.
    if not 0 <= steps <= _MOST_STEPS or len(body.node) * steps > _MOST_NODES or (num_scanned and not steps):
        return None
    return steps if _goes_on(body, values) else None


def _goes_on(body: GraphProto, outer: Values) -> bool:
    """Whether the condition that a body computes is that which it is given, or the constant true."""
    values, name = Values(body, outer), body.output[0].name
    producers = {output: node for node in body.node for output in node.output}
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    constant = values.constant(name)
    return name == body.input[1].name or (constant is not None and bool(constant.reshape(-1)[0]))


def _copies(loop: NodeProto, steps: int, names: Names) -> list[NodeProto]:
    """The nodes of a body for each step, and those that give the outputs of the Loop."""
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
