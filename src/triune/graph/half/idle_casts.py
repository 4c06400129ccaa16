"""Remove casts of fp32 to fp32."""

from onnx import ModelProto, TensorProto

from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.values import Values

_FP32 = TensorProto.FLOAT


class DropIdleCasts(GraphPass):
    """Given casts of fp32 to fp32, for instance between scores and their Softmax. Result: no such casts."""

    name = "drop_idle_casts"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove casts of fp32 to fp32 from `model`, in place. Subgraphs stay as they are."""
        values = Values(model.graph)
        for node in model.graph.node:
            if node.op_type == "Cast" and values.elem_type(node.input[0]) == values.elem_type(node.output[0]) == _FP32:
                node.op_type = "Identity"
                del node.attribute[:]
        return Tidy()(model)
