"""Models in ONNX's own text."""

import onnx.parser
from onnx import ModelProto

from triune.graph.core_ops import OPSET


def model_of(text: str, *, opset: int = OPSET, imports: str = "") -> ModelProto:
    """`agraph (float[2] x) => (float[2] y) { y = Relu (x) }` as a model; `imports` as `, "domain" : 1`."""
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{imports}]> {text}')


def ops_of(model: ModelProto) -> list[str]:
    """The operators of the model's own nodes, in order."""
    return [node.op_type for node in model.graph.node]
