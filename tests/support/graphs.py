"""Models written in ONNX's text format."""

from collections.abc import Mapping
from typing import Any

import onnx.parser
import onnxruntime as ort
from onnx import ModelProto

from triune.graph.check import evaluate
from triune.graph.core_ops import OPSET


def model_of(text: str, *, opset: int = OPSET, imports: str = "") -> ModelProto:
    """Parse a model from text such as `agraph (float[2] x) => (float[2] y) { y = Relu (x) }`. `imports` adds operator
    sets, such as `, "domain" : 1`.
    """
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}{imports}]> {text}')


def ops_of(model: ModelProto) -> list[str]:
    """The operators of the model's own nodes, in order."""
    return [node.op_type for node in model.graph.node]


def answers(model: ModelProto, inputs: Mapping[str, Any]) -> list[Any]:
    """Compute the outputs with ONNX Runtime, or with ONNX's evaluator if ONNX Runtime cannot load the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's errors have no common base class.
        return evaluate(model, inputs)
    return session.run(None, dict(inputs))


def old_model() -> ModelProto:
    """A model of operator set 10, with operators whose meaning has changed since, a function that is called twice, and
    a custom operator.
    """
    return model_of(
        """
        agraph (float[1,2,3,4] x) => (float[1,2,7,6] r, float[1,2,2,9] n, float[1,2,3,4] h, float[1,2,3,4] p,
                                      float[1,2,3,4] q, float[1,2,3,4] t)
          <float[4] s = {1, 1, 2.5, 1.7}, float[4] u = {1, 1, 0.7, 2.3}> {
          r = Resize <mode = "linear"> (x, s)  n = Resize <mode = "nearest"> (x, u)  h = Hardmax <axis = 2> (x)
          p = LogSoftmax <axis = 1> (x)  q = LogSoftmax <axis = 3> (x)  t = own.scaled <by = 3.0> (x) }
        <domain: "own", opset_import: ["" : 10]> scaled <by: float = 2.0> (a) => (b) {
          c = Constant <value = float {0.5}> ()  e = Mul (a, c)  b = Elu <alpha: float = @by> (e) }
        """,
        opset=10,
        imports=', "own" : 1',
    )
