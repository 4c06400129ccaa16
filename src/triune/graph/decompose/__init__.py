"""Decompositions into core ops of operators for which ONNX's standard has no function body.

Each file holds one family of operators and the table of its rules.
"""

from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.conversion.problems import Refusal, note_why
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
    regions,
    scan,
    shapes,
    training,
)
from triune.graph.decompose.classical.tables import DOMAIN as TREES
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.names import Names
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, attributes_of, names_read, subgraphs_of

STANDARD: dict[str, Decomposition] = {
    **elementwise.TABLE,
    **powers.TABLE,
    **shapes.TABLE,
    **pools.TABLE,
    **integers.TABLE,
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
"""Those of other domains."""


class Decompose(GraphPass):
    """Replace operators that are not core ops and have no function body in ONNX's standard by core ops.

    An operator whose decomposition needs an unknown type or shape stays.
    """

    name = "decompose"

    def __init__(self, keep: Collection[str] = ()) -> None:
        """`keep`: operators that are not decomposed."""
        self._table = {name: each for name, each in STANDARD.items() if name not in keep}
        self._count = 0

    def __call__(self, model: ModelProto) -> ModelProto:
        """Decompose the nodes of `model`. The new values have no types yet: shape inference must run again."""
        while True:
            is_changed, is_waiting = self._decompose(model.graph, None, Names(model.graph))
            if not (is_changed and is_waiting):
                return model
            # ONNX's shape inference stops at an operator of another domain: decomposing one may make known the types
            # that the next one waits for.
            model = Infer()(model)

    def _decompose(self, graph: GraphProto, outer: Values | None, names: Names) -> tuple[bool, bool]:
        """Decompose a graph's nodes. Returns whether one was, and whether one waits for an unknown type or shape."""
        values = Values(graph, outer)
        read = names_read(graph)
        nodes: list[NodeProto] = []
        is_changed = is_waiting = False
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                found = self._decompose(subgraph, values, names)
                is_changed, is_waiting = is_changed or found[0], is_waiting or found[1]
            written = self._written(node, values, read, names)
            is_waiting |= written is None
            nodes += written if written else [node]
            is_changed |= bool(written)
        if is_changed:
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        return is_changed, is_waiting

    def _written(self, node: NodeProto, values: Values, read: Collection[str], names: Names) -> list[NodeProto] | None:
        """The nodes that replace a node: an empty list if it stays, None if it waits for an unknown type or shape."""
        table = self._table if node.domain in ("", "ai.onnx") else OTHERS.get(node.domain, {})
        decomposition = table.get(node.op_type)
        if decomposition is None:
            return []
        if table is self._table and any(name and values.type(name) is None for name in node.input):
            # Behind an operator that ONNX does not know. Those of other domains ask for what types they need.
            return None
        self._count += 1
        name = next((each for each in node.output if each), node.op_type)
        build = Builder(names.prefix(f"{name}/{node.op_type}{self._count}"))
        try:
            is_done = decomposition(Context(node, values, attributes_of(node), build, read))
        except Refusal as refusal:
            note_why(node, str(refusal))
            return []
        return build.nodes if is_done else None
