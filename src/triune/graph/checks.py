"""Insert nodes that make ONNX Runtime raise an error for sizes and numbers of 0 with which another node would crash the
process.

A check is an integer division x / x: ONNX Runtime raises an error if x is 0, and the result is 1 otherwise.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, count

from onnx import FunctionProto, GraphProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.faults import FAULTS, MICROSOFT, TRIED, UNTRIED, Fault
from triune.graph.names import Names
from triune.graph.values import Values, subgraphs_of

_FILLED = frozenset(
    ["DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose", "Add", "Sub", "Mul", "Gather"]
)
"""Operators whose result has no size of 0 if none of their operands has one.

Weights that they compute from constants, such as dequantized ones, need no check. A check between such weights and the
node that reads them would prevent ONNX Runtime from using its 8-bit kernels.
"""


class Checks:
    """Inserts checks into graphs and functions.

    Attributes:
        is_changed: whether any check was inserted.
        crash_risk: a message with a node that may crash the process in spite of the checks, and how; "" if there is
            none.
    """

    def __init__(self) -> None:
        self.is_changed = False
        self.crash_risk = ""
        # The names of results that are computed from constants and have no size of 0.
        self._filled: set[str] = set()
        self._node_names: set[str] = set()

    def body(self, body: GraphProto | FunctionProto, *, can_write: bool) -> None:
        """Insert checks of the operands of the nodes in a body and in its subgraphs.

        Args:
            body: the graph or function; changed in place.
            can_write: whether the operator set of `body` has the operators that a check is made of.
        """
        graph = body if isinstance(body, GraphProto) else GraphProto(node=body.node)
        self._node_names.update(_names_of_nodes(graph))
        self._nodes(body, graph, None, Names(graph) if can_write else None)

    def _nodes(
        self, body: GraphProto | FunctionProto, graph: GraphProto, outer: Values | None, names: Names | None
    ) -> None:
        values = Values(graph, outer)
        nodes: list[NodeProto] = []
        for node in list(body.node):
            for inner in subgraphs_of(node):
                self._nodes(inner, inner, values, names)
            fault = _fault_of(node, values)
            if fault is not None:
                nodes += self._with_checks(node, fault, values, names)
            nodes.append(node)
            if self._is_filled(node, values):
                self._filled.update(node.output)
        if len(nodes) > len(body.node):
            copies = GraphProto(node=nodes)
            del body.node[:]
            body.node.extend(copies.node)
            self.is_changed = True

    def _with_checks(self, node: NodeProto, fault: Fault, values: Values, names: Names | None) -> list[NodeProto]:
        """Build the nodes that check the operands of `node`, and let `node` read their results."""
        label = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
        given = {position: name for position, name in enumerate(node.input) if name}
        is_safe = bool(fault.sizes or fault.nonzero or fault.constant)
        is_safe &= all(
            values.tensor(name) is not None for position, name in given.items() if position in fault.constant
        )
        sized = {
            position: name
            for position, name in given.items()
            if position in fault.sizes and not self._has_sizes(name, values)
        }
        counted = {position: given[position] for position in fault.nonzero if position in given}
        if not is_safe or ((sized or counted) and names is None):
            self.crash_risk = self.crash_risk or f"{label}: {fault.why}"
            return []
        if names is None or not (sized or counted):
            return []
        builder = Builder(names.prefix(f"{label}/checked"))
        for position, name in sized.items():
            message = self._new_name(f"{label} takes no size of 0")
            node.input[position] = _with_sizes(builder, name, fault.sizes[position], message)
        for position, name in counted.items():
            one = builder.name()
            builder.nodes.append(_division(name, one, self._new_name(f"{label} takes no 0")))
            node.input[position] = builder.op("Mul", name, one)
        return builder.nodes

    def _new_name(self, message: str) -> str:
        """A name for a new node: the message, with a number after it if another node has that name. A model may be
        checked again, and nodes of equal names are invalid.
        """
        names = chain([message], (f"{message} ({number})" for number in count(2)))
        name = next(each for each in names if each not in self._node_names)
        self._node_names.add(name)
        return name

    def _is_filled(self, node: NodeProto, values: Values) -> bool:
        is_known = node.op_type in _FILLED and node.domain in ("", "ai.onnx")
        return is_known and all(self._has_sizes(name, values) for name in node.input if name)

    def _has_sizes(self, name: str, values: Values) -> bool:
        """Whether a value is a constant, or computed from constants, and has no dimension of size 0."""
        tensor = values.tensor(name)
        return name in self._filled if tensor is None else 0 not in tensor.dims


def _names_of_nodes(graph: GraphProto) -> Iterator[str]:
    """The names of the nodes of a graph and its subgraphs."""
    for node in graph.node:
        yield node.name
        for inner in subgraphs_of(node):
            yield from _names_of_nodes(inner)


def _fault_of(node: NodeProto, values: Values) -> Fault | None:
    """The known fault of a node's operator; None if it has none, or if its conditions are not met."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    fault = FAULTS.get((domain, node.op_type))
    if fault is None:
        return UNTRIED if domain == MICROSOFT and node.op_type not in TRIED else None
    if fault.with_attribute and all(each.name != fault.with_attribute for each in node.attribute):
        return None
    if fault.of_rank is not None:
        position, rank = fault.of_rank
        known = values.rank(node.input[position]) if position < len(node.input) else None
        return fault if known in (None, rank) else None
    return fault


def _with_sizes(builder: Builder, name: str, axes: Sequence[int] | None, message: str) -> str:
    """Build a copy of a value for which ONNX Runtime raises an error with the text `message` if a size along `axes` is
    0.
    """
    shape = builder.op("Shape", name)
    sizes = shape if axes is None else builder.op("Gather", shape, builder.ints(*axes))
    ones = builder.name()
    builder.nodes.append(_division(sizes, ones, message))
    if axes is not None:
        ones = builder.op("ReduceProd", ones, keepdims=0)
    return builder.op("Reshape", name, builder.op("Mul", shape, ones))


def _division(name: str, result: str, message: str) -> NodeProto:
    return NodeProto(op_type="Div", name=message, input=[name, name], output=[result])
