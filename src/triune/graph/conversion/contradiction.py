"""Explain why coremltools or Core AI refuses a node, by ONNX's own checks: most such nodes are invalid ONNX."""

import re

import onnx.checker
import onnx.shape_inference
from onnx import ModelProto, NodeProto, helper

from triune.graph.core_ops import OPSET
from triune.graph.inference import infer_shapes
from triune.graph.values import Values, subgraphs_of

_MOST_BYTES = 1 << 10
"""Constants of more bytes are left out of the check, since only small ones affect shapes."""

_NOISE = re.compile(r"Inference error\(s\): |\[(Type|Shape)InferenceError\] |\(op_type:[^)]*\):? ?")


def contradiction(node: NodeProto, values: Values) -> str | None:
    """The error that ONNX finds in a node with these operands; None if it finds none."""
    if node.domain not in ("", "ai.onnx") or any(True for _ in subgraphs_of(node)):
        return None
    names = list(dict.fromkeys(name for name in node.input if name))
    types = {name: values.type(name) for name in names}
    inputs = [helper.make_value_info(name, kind) for name, kind in types.items() if kind is not None]
    if len(inputs) < len(names):
        return None
    tensors = {name: values.tensor(name) for name in names}
    small = [each for each in tensors.values() if each is not None and len(each.raw_data) <= _MOST_BYTES]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs, small)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    return contradiction_within(model)


def contradiction_within(model: ModelProto) -> str | None:
    """The error that ONNX finds in a model; None if it finds none."""
    try:
        infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        _check_nodes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return " ".join(_NOISE.sub("", str(error)).split()) or repr(error)
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
