"""Fuse products with gathered matrices (mixtures of experts) into one operation."""

from collections.abc import Iterator

from triune.graph.builder import Builder
from triune.graph.fused.call import RESULT, FusedCall
from triune.graph.fused.pattern import FusePattern
from triune.graph.index import Index
from triune.graph.match.gather_matmul import match_gather_matmul


class FuseGatherMatMul(FusePattern):
    """Given MatMul(x, Gather(matrices, indices, axis=0)) with the indices of a TopK. Result: `gather_mm`.

    Apple's operation takes unsigned indices, so other indices, which may be negative, are not fused.
    """

    name = "fuse_gather_matmul"

    def calls(self, index: Index) -> Iterator[FusedCall]:
        """Yield a call for each product with gathered matrices in the graph."""
        for node in index.graph.node:
            found = match_gather_matmul(index, node)
            if found is not None:
                body = Builder("body")
                body.put("MatMul", ["lhs", body.op("Gather", "rhs", "rhs_indices", axis=0)], [RESULT])
                operands = {"lhs": found.x, "rhs": found.matrices, "rhs_indices": found.indices}
                yield FusedCall("gather_mm", node, operands, body.nodes, {"num_batch_axes": 0})
