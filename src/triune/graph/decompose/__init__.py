"""Operators that ONNX does not define by others, written with core ops. One family a file, each with its table."""

from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.builder import Builder
from triune.graph.decompose import (
    classical,
    counting,
    elementwise,
    integers,
    linear,
    pools,
    regions,
    scan,
    shapes,
    training,
)
from triune.graph.decompose.context import Context, Decomposition
from triune.graph.values import Values, attributes_of, subgraphs_of

STANDARD: dict[str, Decomposition] = {
    **elementwise.TABLE,
    **shapes.TABLE,
    **pools.TABLE,
    **integers.TABLE,
    **linear.TABLE,
    **scan.TABLE,
    **regions.TABLE,
    **counting.TABLE,
}

OTHERS: dict[str, dict[str, Decomposition]] = {
    "ai.onnx.ml": classical.TABLE,
    "ai.onnx.preview.training": training.TABLE,
}
"""Those of other domains."""


class Decompose:
    """Given operators that are no core ops and have no body in ONNX's standard. Result: core ops.

    What depends on a shape that is not known stays as it is.
    """

    name = "decompose"

    def __init__(self, keep: Collection[str] = ()) -> None:
        """`keep`: operators that stay whole."""
        self._table = {name: each for name, each in STANDARD.items() if name not in keep}
        self._count = 0

    def __call__(self, model: ModelProto) -> ModelProto:
        """The new values have no types yet: infer them again."""
        self._decompose(model.graph, None)
        return model

    def _decompose(self, graph: GraphProto, outer: Values | None) -> None:
        values = Values(graph, outer)
        nodes: list[NodeProto] = []
        is_changed = False
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                self._decompose(subgraph, values)
            table = self._table if node.domain in ("", "ai.onnx") else OTHERS.get(node.domain, {})
            decomposition = table.get(node.op_type)
            if decomposition is not None:
                self._count += 1
                build = Builder(f"{node.output[0]}/{node.op_type}{self._count}")
                if decomposition(Context(node, values, attributes_of(node), build)):
                    nodes.extend(build.nodes)
                    is_changed = True
                    continue
            nodes.append(node)
        if is_changed:
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
