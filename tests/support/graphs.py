"""Models in ONNX's own text."""

from collections.abc import Mapping
from typing import Any

import onnx.parser
import onnxruntime as ort
from onnx import ModelProto

from triune.graph.check import evaluate
from triune.graph.core_ops import OPSET


def model_of(text: str, *, opset: int = OPSET, imports: str = "") -> ModelProto:
    """`agraph (float[2] x) => (float[2] y) { y = Relu (x) }` as a model; `imports` as `, "domain" : 1`."""
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{imports}]> {text}')


def ops_of(model: ModelProto) -> list[str]:
    """The operators of the model's own nodes, in order."""
    return [node.op_type for node in model.graph.node]


def answers(model: ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    """The outputs, by ONNX Runtime; by ONNX's evaluator where that cannot load the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's errors have no common root.
        return evaluate(model, inputs)
    return session.run(None, dict(inputs))
