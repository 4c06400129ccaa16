"""Move the weights of subgraphs to the initializers of the main graph."""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

from triune.graph.names import Names, rename
from triune.graph.values import subgraphs_of


def hoist_weights(model: ModelProto) -> None:
    """Move external weights from subgraphs (of If, Loop, Scan) to the main graph's initializers, under new names.

    Every pass copies subgraphs with the weights in them, but not the main graph's initializers. Weights that are inputs
    or outputs of a subgraph stay.
    """
    names = Names(model.graph)
    for body in list(_bodies(model.graph)):
        kept = {value.name for value in (*body.input, *body.output)}
        renamed: dict[str, str] = {}
        for tensor in _external(body):
            if tensor.name in kept:
                continue
            renamed[tensor.name] = names.value(tensor.name)
            hoisted = model.graph.initializer.add()
            hoisted.CopyFrom(tensor)
            hoisted.name = renamed[tensor.name]
        if not renamed:
            continue
        for position in reversed(range(len(body.initializer))):
            if body.initializer[position].name in renamed:
                del body.initializer[position]
        for position in reversed(range(len(body.node))):
            node = body.node[position]
            if _is_constant(body, position) and node.output[0] in renamed:
                del body.node[position]
            else:
                rename(node, renamed, "")


def _bodies(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for body in subgraphs_of(node):
            yield body
            yield from _bodies(body)


def _external(body: GraphProto) -> Iterator[TensorProto]:
    """Yield the tensors of a subgraph with external data, with their names in the subgraph."""
    yield from (tensor for tensor in body.initializer if tensor.data_location == TensorProto.EXTERNAL)
    for position, node in enumerate(body.node):
        if _is_constant(body, position) and node.attribute[0].t.data_location == TensorProto.EXTERNAL:
            tensor = TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor


def _is_constant(body: GraphProto, position: int) -> bool:
    node = body.node[position]
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.attribute) == 1
