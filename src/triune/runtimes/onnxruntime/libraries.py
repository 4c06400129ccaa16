"""Shared libraries of custom operators, which ONNX Runtime loads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from onnx import ModelProto, NodeProto

from triune.core.errors import InvalidArgumentError
from triune.graph.values import nodes_within
from triune.runtimes.failures import reason_of

_KNOWN: Final = frozenset(
    [
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"),
        *("com.microsoft", "com.microsoft.experimental", "com.microsoft.nchwc", "com.ms.internal.nhwc"),
    ]
)
"""The domains of the operators that ONNX and ONNX Runtime define. "ai.onnx.contrib", the domain of
onnxruntime-extensions, is not among them.
"""


def has_foreign_ops(model: ModelProto) -> bool:
    """Whether a model has operators that neither ONNX, nor ONNX Runtime, nor the model's functions define."""
    functions = {(each.domain, each.name) for each in model.functions}
    graphs = [model.graph.node, *(each.node for each in model.functions)]
    return any(_is_foreign(node, functions) for nodes in graphs for node in nodes_within(nodes))


def register_libraries(options: Any, libraries: Sequence[Path]) -> None:
    """Register the operators of shared libraries with the SessionOptions `options`.

    Raises:
        InvalidArgumentError: a library cannot be loaded.
    """
    for path in libraries:
        try:
            options.register_custom_ops_library(str(path))
        except Exception as error:
            raise InvalidArgumentError(
                f"the library of custom operators '{path}' cannot be loaded: {reason_of(error)}; it must be built for "
                "this system, and export RegisterCustomOps"
            ) from error


def _is_foreign(node: NodeProto, functions: set[tuple[str, str]]) -> bool:
    return node.domain not in _KNOWN and (node.domain, node.op_type) not in functions
