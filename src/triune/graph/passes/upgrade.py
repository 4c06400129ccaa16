"""One version of the operator set for every model."""

import onnx.version_converter
from onnx import GraphProto, ModelProto, OperatorSetIdProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.core_ops import OPSET
from triune.graph.passes.infer import Infer
from triune.graph.values import subgraphs_of

_FIRST_SCAN_WITHOUT_BATCH = 9
"""ONNX's converter takes older ones as they are, with another meaning."""

_FIRST_SOFTMAX_OF_ONE_AXIS = 13


class Upgrade:
    """Given a model of an older operator set. Result: the same of version `OPSET`.

    The conversion is ONNX's own; where it has no adapter for an operator's change, that is an error.
    """

    name = "upgrade"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Raises UnsupportedError where the conversion is not known, InvalidArgumentError for a version to come."""
        version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), None)
        if version is None:
            model.opset_import.append(OperatorSetIdProto(domain="", version=OPSET))
            return model
        if version > OPSET:
            raise InvalidArgumentError(
                f"the model is of operator set {version}; the newest that is known here is {OPSET}: export it again "
                "for an older one, or install a newer Triune"
            )
        if version == OPSET:
            return model
        if version < _FIRST_SCAN_WITHOUT_BATCH and _has_scan(model.graph):
            raise UnsupportedError(
                f"the model has a Scan of operator set {version}, over batches, which later sets do not have: export "
                f"it again for operator set {_FIRST_SCAN_WITHOUT_BATCH} or later"
            )
        if version < _FIRST_SOFTMAX_OF_ONE_AXIS:
            # With ranks known, the converter need not bring what Softmax reads to two dimensions.
            model = Infer()(model)
        try:
            return onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter raises RuntimeError, ValueError and its own without a common root
            raise UnsupportedError(
                f"the model cannot be brought from operator set {version} to {OPSET}: {' '.join(str(error).split())}"
            ) from error


def _has_scan(graph: GraphProto) -> bool:
    return any(node.op_type == "Scan" or any(map(_has_scan, subgraphs_of(node))) for node in graph.node)
