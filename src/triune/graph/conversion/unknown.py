"""Remove the attributes of unknown operators, since no pass reads them."""

from collections.abc import Collection, Iterable
from typing import Any

import onnx.defs
from onnx import ModelProto, NodeProto

from triune.graph.decompose import OTHERS
from triune.graph.values import subgraphs_of

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs


def empty_unknown(model: ModelProto) -> None:
    """Remove the attributes of operators that neither ONNX, Triune nor the model's functions define.

    The conversion refuses such nodes in the end. Before that, each pass would copy the attributes, and ONNX's checker
    and shape inference would expand them: 3 MB of attributes took 320 MB of memory.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    _empty(model.graph.node, functions)
    for function in model.functions:
        _empty(function.node, functions)


def _empty(nodes: Iterable[NodeProto], functions: Collection[tuple[str, str]]) -> None:
    for node in nodes:
        for graph in subgraphs_of(node):
            _empty(graph.node, functions)
        if not _is_known(node) and (node.domain, node.op_type) not in functions:
            del node.attribute[:]


def _is_known(node: NodeProto) -> bool:
    """Whether ONNX or Triune defines operators of the node's domain."""
    return node.domain in ("", "ai.onnx") or node.domain in OTHERS or _schemas.has(node.op_type, node.domain)
