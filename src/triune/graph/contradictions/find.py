"""Find nodes whose attributes, constants and shapes contradict each other, so that no runtime can compute them."""

from collections.abc import Iterator, Mapping, Sequence

from onnx import GraphProto, NodeProto
from onnx.shape_inference import InferenceError

from triune.graph.contradictions import indices, microsoft, norms, sequences, shapes, windows
from triune.graph.contradictions.facts import Facts, Rule
from triune.graph.inference import infer_node, plain_words
from triune.graph.values import Values, names_read_by, subgraphs_of

RULES: Mapping[str, Rule] = {**indices.RULES, **norms.RULES, **sequences.RULES, **shapes.RULES, **windows.RULES}
"""The rules by operator, for errors that ONNX's shape inference does not find or reports differently."""


_OWN_RULES_ALONE = frozenset(["Range"])
"""Operators whose nodes ONNX's inference may refuse although runtimes compute them: Range with limits that are vectors
of one element. ONNX's own functions have such nodes.
"""


def contradictions(
    graph: GraphProto, outer: Values | None = None, *, in_bodies: bool
) -> Iterator[tuple[NodeProto, str]]:
    """Yield the nodes of a graph that no runtime can compute, each with a message.

    Nodes that no output depends on are left out, since programs do not have them.

    Args:
        graph: of operator set `core_ops.OPSET`, with types and shapes as far as they are known.
        outer: the values of the graph around it.
        in_bodies: whether to look into the bodies of If, Loop and Scan as well. A branch that is not taken may
            contradict the shapes that are given, so set it only if each If of a constant condition has been replaced by
            its branch.
    """
    values = Values(graph, outer)
    for node in _needed(graph):
        found = next(found_at(node, values), None)
        if found is not None:
            yield node, found
        for inner in subgraphs_of(node) if in_bodies else ():
            yield from contradictions(inner, values, in_bodies=True)


def found_at(node: NodeProto, values: Values) -> Iterator[str]:
    """Yield a message for each contradiction at one node."""
    if node.domain == microsoft.DOMAIN:
        yield from microsoft.wrong_at(Facts.of(node, values))
    if node.domain not in ("", "ai.onnx"):
        return
    rule = RULES.get(node.op_type)
    if rule is not None:
        yield from rule(Facts.of(node, values))
    if node.op_type in _OWN_RULES_ALONE:
        return
    try:
        infer_node(node, values)
    except InferenceError as error:
        yield plain_words(error)


def _needed(graph: GraphProto) -> Sequence[NodeProto]:
    """The nodes that an output depends on, in order."""
    read = {value.name for value in graph.output}
    needed: list[NodeProto] = []
    for node in reversed(graph.node):
        if any(name in read for name in node.output):
            read |= names_read_by(node)
            needed.append(node)
    return needed[::-1]
