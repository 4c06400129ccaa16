"""The report of an optimization."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto

from triune.graph.values import subgraphs_of


@dataclass(frozen=True, slots=True)
class PassReport:
    """The report of one run of a pass.

    Attributes:
        name: the pass.
        what: a description of the pass.
        change: a description of which operators became fewer and which more.
        num_nodes_before: the number of nodes before the pass, with those of subgraphs.
        num_nodes_after: the number of nodes after the pass, with those of subgraphs.
        seconds: its time, with that of shape inference and of the comparison.
        left_out: why its result was rejected; "" if it was not.
    """

    name: str
    what: str
    change: str
    num_nodes_before: int
    num_nodes_after: int
    seconds: float
    left_out: str = ""


def op_counts(model: ModelProto) -> Counter[str]:
    """How many nodes of each operator a model has, with those of subgraphs."""
    return Counter(_ops(model.graph))


def _ops(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
        for inner in subgraphs_of(node):
            yield from _ops(inner)


def change_between(before: ModelProto, after: ModelProto) -> str:
    """The difference of two models in words: "12 Transpose, 2 constants fewer; 1 Split more"."""
    counts, others = (op_counts(each) for each in (before, after))
    differences = {name: others[name] - counts[name] for name in sorted({*counts, *others})}
    num_constants = len(after.graph.initializer) - len(before.graph.initializer)
    differences["constant" if abs(num_constants) == 1 else "constants"] = num_constants
    fewer = [f"{-count} {name}" for name, count in differences.items() if count < 0]
    more = [f"{count} {name}" for name, count in differences.items() if count > 0]
    parts = [*([f"{', '.join(fewer)} fewer"] if fewer else []), *([f"{', '.join(more)} more"] if more else [])]
    return "; ".join(parts) or "as many nodes of each operator, with other operands"
