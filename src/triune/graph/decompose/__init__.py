"""Decompose operators for which ONNX has no function body into core ops.

Each file has one family of operators: a function for each operator builds the nodes that replace it, and `TABLE` lists
the functions.
"""

import itertools
from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.contradictions import found_at
from triune.graph.conversion.problems import Refusal, note_origin, note_why
from triune.graph.decompose import (
    classical,
    counting,
    elementwise,
    grids,
    integers,
    linear,
    microsoft,
    pools,
    powers,
    q_linear,
    regions,
    scan,
    shapes,
    training,
)
from triune.graph.decompose.classical.tables import DOMAIN as TREES
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.names import Names
from triune.graph.passes.consistent import require_none
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, names_read, subgraphs_of

STANDARD: dict[str, Decomposition] = {
    **elementwise.TABLE,
    **powers.TABLE,
    **shapes.TABLE,
    **pools.TABLE,
    **integers.TABLE,
    **q_linear.TABLE,
    **linear.TABLE,
    **scan.TABLE,
    **regions.TABLE,
    **counting.TABLE,
    **grids.TABLE,
}

OTHERS: dict[str, dict[str, Decomposition]] = {
    "ai.onnx.ml": classical.TABLE,
    TREES: classical.TABLE,
    "ai.onnx.preview.training": training.TABLE,
    "com.microsoft": microsoft.TABLE,
}
"""The decompositions of each other domain, by operator."""


class Decompose(GraphPass):
    """Given operators that are not core ops and for which ONNX has no function body. Result: core ops.

    An operator stays if its decomposition needs a type or shape that is not known.
    """

    name = "decompose"

    def __init__(self, keep: Collection[str] = ()) -> None:
        """`keep` has the names of operators that are not decomposed."""
        self._table = {name: each for name, each in STANDARD.items() if name not in keep}
        self._count = 0

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace operators in `model`, in place, by core ops. New values have no types yet: run `Infer` afterwards."""
        while True:
            is_changed, is_waiting = self._decompose(model.graph, None, Names(model.graph))
            if not (is_changed and is_waiting):
                return model
            # ONNX's shape inference stops at an operator of another domain. Once that is decomposed, inference may find
            # the types that the next one needs.
            model = Infer()(model)

    def _decompose(self, graph: GraphProto, outer: Values | None, names: Names) -> tuple[bool, bool]:
        """Decompose the nodes of a graph. Returns whether a node was decomposed, and whether one needs a type or shape
        that is not known.
        """
        values = Values(graph, outer)
        read = names_read(graph)
        nodes: list[NodeProto] = []
        is_changed = is_waiting = False
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                found = self._decompose(subgraph, values, names)
                is_changed, is_waiting = is_changed or found[0], is_waiting or found[1]
            written = self._replacement(node, values, read, graph, names)
            is_waiting |= written is None
            nodes += written if written else [node]
            is_changed |= bool(written)
        if is_changed:
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        return is_changed, is_waiting

    def _replacement(
        self, node: NodeProto, values: Values, read: Collection[str], graph: GraphProto, names: Names
    ) -> list[NodeProto] | None:
        """The nodes that replace a node: [] if it stays, None if it needs a type or shape that is not known."""
        table = self._table if node.domain in ("", "ai.onnx") else OTHERS.get(node.domain, {})
        decomposition = table.get(node.op_type)
        if decomposition is None:
            return []
        if table is self._table and any(name and values.type(name) is None for name in node.input):
            # Leave a node of ONNX's domain for the next round: its types are unknown because of an earlier operator
            # that ONNX does not know. Decompositions of other domains check types themselves.
            return None
        if node.domain not in ("", "ai.onnx") and any(name in read for name in node.output):
            # Check the node only now: the types of its operands may come from an operator of another domain that was
            # decomposed before.
            require_none((node, why) for why in itertools.islice(found_at(node, values), 1))
        self._count += 1
        name = next((each for each in node.output if each), node.op_type)
        build = Builder(names.prefix(f"{name}/{node.op_type}{self._count}"))
        try:
            is_done = decomposition(Context(node, values, attributes_of(node), build, read, graph))
        except Refusal as refusal:
            note_why(node, str(refusal))
            return []
        if node.domain not in ("", "ai.onnx"):
            note_origin(build.nodes, node)
        return build.nodes if is_done else None
