"""Move operators that ONNX does not define, but runtimes put into ONNX's domain, to a domain of their own."""

from collections.abc import Iterable
from typing import Any

import onnx.defs
from onnx import ModelProto, NodeProto, OperatorSetIdProto

from triune.graph.passes.run import GraphPass
from triune.graph.passes.upgrade.adopted import ADOPTED, TABLE
from triune.graph.values import subgraphs_of

# onnx's stubs lack most of a schema's members.
_schemas: Any = onnx.defs


class Adopt(GraphPass):
    """Given nodes in ONNX's domain whose operators ONNX Runtime has, but the model's operator set lacks. Result: the
    same nodes in the domain `ADOPTED`, which ONNX's checker accepts. `Upgrade` replaces them later.

    ONNX Runtime's optimizer writes LayerNormalization and SimplifiedLayerNormalization into models of any set, and its
    first versions had operators that ONNX tried and gave up (ImageScaler, Affine).
    """

    name = "adopt"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes the nodes of the model and of its functions, each by the operator set that it is written in."""
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
    """Whether ONNX's operator set `version` has the operator."""
    return _schemas.has(op_type, version, "") and not _schemas.get_schema(op_type, version, "").deprecated
