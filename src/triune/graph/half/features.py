"""Find the nodes of machine learning without networks: linear models, support vector machines, scalers.

They read features of any size (prices, seconds since 1970), which nothing has normalized, and their weights are as
small as the features are large: -8e-5 for seconds. Such models are small, so fp16 gains nothing.
"""

from onnx import NodeProto, TensorProto

from triune.graph.conversion.problems import noted_origin
from triune.graph.values import Values

_DOMAIN = "ai.onnx.ml:"


def is_of_features(node: NodeProto, values: Values) -> bool:
    """Whether a node that reads or writes floats comes from the decomposition of an operator of ai.onnx.ml."""
    if not (noted_origin(node) or "").startswith(_DOMAIN):
        return False
    return any(name and values.elem_type(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
