"""Move operators that only ONNX Runtime defines from ONNX's own domain to another domain, where `Upgrade` replaces them
later.
"""

from collections.abc import Iterable
from typing import Any

import onnx.defs
from onnx import ModelProto, NodeProto, OperatorSetIdProto

from triune.graph.passes.run import GraphPass
from triune.graph.passes.upgrade.adopted import ADOPTED, TABLE
from triune.graph.values import subgraphs_of

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs


class Adopt(GraphPass):
    """Given nodes in ONNX's domain whose operators ONNX Runtime has, although the model's operator set lacks them.
    Result: the same nodes in the domain "triune.adopted". ONNX's checker accepts them there, and `Upgrade` replaces
    them later.

    ONNX Runtime's optimizer writes LayerNormalization and SimplifiedLayerNormalization into models of any operator set.
    Old models have experimental operators that ONNX has removed (ImageScaler, Affine).
    """

    name = "adopt"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Move nodes of `model` and of its functions, in place, to the domain "triune.adopted".

        Whether ONNX has an operator is decided by the operator set that the model, or the function, imports.
        """
        if _adopt(model.graph.node, _version(model.opset_import)):
            model.opset_import.append(OperatorSetIdProto(domain=ADOPTED, version=1))
        for function in model.functions:
            if _adopt(function.node, _version(function.opset_import)):
                function.opset_import.append(OperatorSetIdProto(domain=ADOPTED, version=1))
        return model


def _version(imports: Iterable[OperatorSetIdProto]) -> int:
    return next((each.version for each in imports if each.domain in ("", "ai.onnx")), 0)


def _adopt(nodes: Iterable[NodeProto], version: int) -> bool:
    is_changed = False
    for node in nodes:
        for graph in subgraphs_of(node):
            is_changed |= _adopt(graph.node, version)
        if node.domain in ("", "ai.onnx") and node.op_type in TABLE and not _has(node.op_type, version):
            node.domain = ADOPTED
            is_changed = True
    return is_changed


def _has(op_type: str, version: int) -> bool:
    """Whether ONNX's operator set `version` has the operator, not marked as deprecated."""
    return _schemas.has(op_type, version, "") and not _schemas.get_schema(op_type, version, "").deprecated
