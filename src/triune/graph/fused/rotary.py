"""Fuse rotary position embeddings into one operation."""

from collections.abc import Iterator

import numpy as np

from triune.graph.builder import Builder
from triune.graph.fused.call import RESULT, FusedCall
from triune.graph.fused.pattern import FusePattern
from triune.graph.index import Index
from triune.graph.match.rotary import RotaryEmbedding, has_equal_halves, match_rotary


class FuseRotary(FusePattern):
    """Given x * cos + rotate_half(x) * sin, where the two halves of each table are equal. Result: `rope` with one half
    of each table.

    rotate_half(x) is the negated second half of the last axis, then the first half.
    """

    name = "fuse_rotary"

    def calls(self, index: Index) -> Iterator[FusedCall]:
        """Yield a call for each rotary embedding in the graph."""
        for node in index.graph.node:
            candidates = (_fused(index, each) for each in match_rotary(index, node, lambda _: False))
            found = next((each for each in candidates if each is not None), None)
            if found is not None:
                yield found


def _fused(index: Index, found: RotaryEmbedding) -> FusedCall | None:
    dims = index.dims(found.x)
    width = dims[-1] if dims else None
    if not isinstance(width, int) or not all(has_equal_halves(index, each, width) for each in (found.cos, found.sin)):
        return None
    half = width // 2
    tables = {
        name: index.build.op("Slice", table, *(index.build.constant([each], np.int64) for each in (0, half, -1, 1)))
        for name, table in (("cos", found.cos), ("sin", found.sin))
    }
    body = Builder("body")
    first = body.op("Slice", "input", body.ints(0), body.ints(half), body.ints(-1), body.ints(1))
    second = body.op("Slice", "input", body.ints(half), body.ints(width), body.ints(-1), body.ints(1))
    first_rotated = body.op("Sub", body.op("Mul", first, "cos"), body.op("Mul", second, "sin"))
    second_rotated = body.op("Add", body.op("Mul", first, "sin"), body.op("Mul", second, "cos"))
    body.put("Concat", [first_rotated, second_rotated], [RESULT], axis=-1)
    settings = {"scale": 1.0, "base": 1e4, "interleaved": 0}
    return FusedCall("rope", found.nodes[-1], {"input": found.x, **tables}, body.nodes, settings)
