"""Find the operators of a model that neither ONNX nor ONNX Runtime defines."""

from collections.abc import Iterator
from typing import Final

from onnx import ModelProto, NodeProto

from triune.core.errors import UnsupportedError
from triune.graph.custom.collection import CustomOps
from triune.graph.index import label
from triune.graph.values import nodes_of_model

_KNOWN: Final = frozenset(
    [
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"),
        *("com.microsoft", "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"),
    ]
)
"""The domains of the operators that ONNX and ONNX Runtime define. "ai.onnx.contrib", the domain of
onnxruntime-extensions, is not among them.
"""


def foreign_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Yield the nodes whose operators neither ONNX, nor ONNX Runtime, nor the model's functions define."""
    functions = {(each.domain, each.name) for each in model.functions}
    for node in nodes_of_model(model):
        if node.domain not in _KNOWN and (node.domain, node.op_type) not in functions:
            yield node


def require_defined(model: ModelProto, ops: CustomOps, where: str) -> None:
    """Raise UnsupportedError, with the node and the remedy, if nobody defines one of the model's operators.

    `where` is what needs the definition: "an optimization". Operators of shared libraries are not known by name, so
    nothing is checked if `ops` has libraries.
    """
    if ops.libraries:
        return
    for node in foreign_nodes(model):
        if (node.domain, node.op_type) not in ops.ops:
            raise UnsupportedError(
                f"what operator '{node.domain}::{node.op_type}' computes, at {label(node)}, is not known, and {where} "
                "needs it; define it as a custom operator, in a file that is named with --custom-ops (custom_ops=...)"
            )
