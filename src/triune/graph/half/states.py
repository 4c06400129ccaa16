"""Find nodes that carry floats from one step of a loop or sequence to the next."""

from onnx import NodeProto, TensorProto

from triune.graph.values import attributes_of

_RECURRENT = frozenset(["LSTM", "GRU", "RNN"])


def carries_state(node: NodeProto) -> bool:
    """Whether a node is a recurrent layer, or a Loop that carries floats from one step to the next."""
    if node.op_type != "Loop":
        return node.op_type in _RECURRENT
    # The first two inputs of the body are the number of the step and the condition; the others are carried.
    carried = attributes_of(node)["body"].input[2:]
    return any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in carried)
