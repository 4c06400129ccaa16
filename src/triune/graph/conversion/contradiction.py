"""Explain why a pass fails on a model, by ONNX's own checks: most such models are invalid ONNX."""

import onnx.checker
import onnx.shape_inference
from onnx import ModelProto

from triune.graph.inference import infer_shapes, plain_words


def contradiction_within(model: ModelProto) -> str | None:
    """The error that ONNX finds in a model; None if it finds none."""
    try:
        infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        _check_nodes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return plain_words(error)
    return None


def _check_nodes(model: ModelProto) -> None:
    """Check the inputs, outputs and attributes of each node with ONNX's checker.

    Raises:
        onnx.checker.ValidationError: an attribute, input or output is unknown or missing.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version or onnx.IR_VERSION
    context.opset_imports = {each.domain: each.version for each in model.opset_import}
    for node in model.graph.node:
        onnx.checker.check_node(node, context)
