"""Products with gathered matrices (mixtures of experts), kept whole."""

from collections.abc import Iterator

from onnx import NodeProto

from triune.graph.ane.index import Index
from triune.graph.builder import Builder
from triune.graph.values import attributes_of
from triune.graph.whole.outline import RESULT, Outline


def find_gather_matmuls(index: Index) -> Iterator[Outline]:
    """Given x times matrices gathered by the indices of a TopK along the first axis. Result: `gather_mm`.

    Apple's takes indices without a sign; those of a TopK are never negative.
    """
    for node in index.graph.node:
        if node.op_type == "MatMul":
            found = _of(index, node)
            if found is not None:
                yield found


def _of(index: Index, end: NodeProto) -> Outline | None:
    gather = index.maker(end.input[1], "Gather")
    if gather is None or int(attributes_of(gather).get("axis", 0)) != 0 or index.rank(gather.input[0]) != 3:
        return None
    if not _is_choice(index, gather.input[1]) or (index.rank(end.input[0]) or 0) < 2:
        return None
    body = Builder("body")
    body.put("MatMul", ["lhs", body.op("Gather", "rhs", "rhs_indices", axis=0)], [RESULT])
    operands = {"lhs": end.input[0], "rhs": gather.input[0], "rhs_indices": gather.input[1]}
    return Outline("gather_mm", end, operands, body.nodes, {"num_batch_axes": 0})


def _is_choice(index: Index, name: str) -> bool:
    node = index.maker(name)
    while node is not None and node.op_type in ("Cast", "Reshape", "Squeeze", "Unsqueeze"):
        name = node.input[0]
        node = index.maker(name)
    return node is not None and node.op_type == "TopK" and name == node.output[1]
