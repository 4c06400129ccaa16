"""Search a model for nodes with which a request can crash the runtime's process."""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.bare import infer_bare
from triune.graph.faults import Fault, Faults
from triune.graph.values import Values, subgraphs_of


def fault_in(model: ModelProto, faults: Faults) -> str:
    """A message about the first node that may crash the process for some request; "" if there is none.

    A node of a listed operator is safe if the operands that must be constant are constant, and the sizes that must not
    be 0 are known to be positive.

    Args:
        model: not changed. If tensors are in files, `locate_data` must have been called on it.
        faults: the operators that may crash the runtime, with the conditions (`graph.faults`).
    """
    bodies = [model.graph, *(GraphProto(node=each.node) for each in model.functions)]
    if not any(_has_fault(node, faults) for body in bodies for node in _within(body)):
        return ""
    # Infer the sizes of the main graph's values; those in functions stay unknown.
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
