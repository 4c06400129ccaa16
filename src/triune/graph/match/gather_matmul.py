"""Match matrix products with the weights of selected experts, as in mixtures of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.index import Index
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class GatherMatMul:
    """MatMul(x, Gather(matrices, indices, axis=0)), where a TopK computes the indices.

    Attributes:
        x: the name of a value (..., K) of two dimensions or more.
        matrices: the name of a value (experts, K, N).
        indices: the name of the integers, never negative, that a TopK computes.
        nodes: the Gather and the MatMul.
    """

    x: str
    matrices: str
    indices: str
    nodes: Sequence[NodeProto]


def match_gather_matmul(index: Index, matmul: NodeProto) -> GatherMatMul | None:
    """The pattern that ends with this MatMul, or None."""
    gather = index.producer(matmul.input[1], "Gather") if matmul.op_type == "MatMul" else None
    if gather is None or int(attributes_of(gather).get("axis", 0)) != 0 or index.rank(gather.input[0]) != 3:
        return None
    if not _are_of_topk(index, gather.input[1]) or (index.rank(matmul.input[0]) or 0) < 2:
        return None
    return GatherMatMul(matmul.input[0], gather.input[0], gather.input[1], (gather, matmul))


def _are_of_topk(index: Index, name: str) -> bool:
    node = index.producer(name)
    while node is not None and node.op_type in ("Cast", "Reshape", "Squeeze", "Unsqueeze"):
        name = node.input[0]
        node = index.producer(name)
    return node is not None and node.op_type == "TopK" and name == node.output[1]
