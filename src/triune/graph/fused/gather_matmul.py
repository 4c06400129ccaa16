"""Fuse products with gathered matrices (mixtures of experts) into one operation."""

from collections.abc import Iterator

from triune.graph.builder import Builder
from triune.graph.fused.call import RESULT, FusedCall
from triune.graph.fused.pattern import FusePattern
from triune.graph.index import Index
from triune.graph.match.gather_matmul import match_gather_matmul


class FuseGatherMatMul(FusePattern):
    """Given x times matrices gathered by the indices of a TopK along the first axis. Result: `gather_mm`.

    Apple's operation takes unsigned indices; those of a TopK are never negative.
    """

    name = "fuse_gather_matmul"

    def calls(self, index: Index) -> Iterator[FusedCall]:
        """One call for each product in the graph."""
        for node in index.graph.node:
            found = match_gather_matmul(index, node)
            if found is not None:
                body = Builder("body")
                body.put("MatMul", ["lhs", body.op("Gather", "rhs", "rhs_indices", axis=0)], [RESULT])
                operands = {"lhs": found.x, "rhs": found.matrices, "rhs_indices": found.indices}
                yield FusedCall("gather_mm", node, operands, body.nodes, {"num_batch_axes": 0})
