"""Search a model for nodes at which a request can crash the runtime's process."""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.bare import infer_bare
from triune.graph.faults import Fault, Faults
from triune.graph.values import Values, subgraphs_of


def fault_in(model: ModelProto, faults: Faults) -> str:
    """A message with the first node at which a request may crash the process, and how; "" where there is none.

    A node is safe if every operand that must be constant is constant, and every size that must not be 0 is known not to
    be 0.

    Args:
        model: not changed. If tensors are in files, `locate_data` must have been called on it.
        faults: the operators at which the runtime may crash (`graph.faults`).
    """
    bodies = [model.graph, *(GraphProto(node=each.node) for each in model.functions)]
    if not any(_has_fault(node, faults) for body in bodies for node in _within(body)):
        return ""
    # The sizes of values in functions are not known.
    bodies[0] = infer_bare(model, is_strict=True).graph
    return next((said for body in bodies for said in _found(body, None, faults)), "")


def _within(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs_of(node):
            yield from _within(inner)


def _has_fault(node: NodeProto, faults: Faults) -> bool:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type) in faults


def _found(graph: GraphProto, outer: Values | None, faults: Faults) -> Iterator[str]:
    values = Values(graph, outer)
    for node in graph.node:
        fault = faults.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        if fault is not None and not _is_safe(node, fault, values):
            yield f"{node.op_type} '{node.name or next(filter(None, node.output), '')}': {fault.why}"
        for inner in subgraphs_of(node):
            yield from _found(inner, values, faults)


def _is_safe(node: NodeProto, fault: Fault, values: Values) -> bool:
    if not (fault.sizes or fault.constant):
        return False
    for position, name in enumerate(node.input):
        if name and position in fault.constant and values.tensor(name) is None:
            return False
        if name and position in fault.sizes and 0 in (values.static_shape(name) or (0,)):
            return False
    return True
