"""Lowering of DepthToSpace and SpaceToDepth, which move blocks of pixels to the depth (channels) and back."""

from collections.abc import Mapping

from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V


def _depth_to_space(c: NodeContext[V]) -> None:
    b, x, block = c.builder, c.input(0), int(c.attributes["blocksize"])
    batch, depth, height, width = b.dims(x)
    if not isinstance(depth, int):
        raise Refusal("DepthToSpace of a depth that is not known; give its size with --shape")
    rest = depth // block**2
    if c.attributes.get("mode", "DCR") == "DCR":
        split, order = b.reshape(x, [batch, block, block, rest, height, width]), [0, 3, 4, 1, 5, 2]
    else:
        split, order = b.reshape(x, [batch, rest, block, block, height, width]), [0, 1, 4, 2, 5, 3]
    dims = [batch, rest, b.product([height, block]), b.product([width, block])]
    c.give(b.reshape(b.transpose(split, order), dims))


def _space_to_depth(c: NodeContext[V]) -> None:
    b, x, block = c.builder, c.input(0), int(c.attributes["blocksize"])
    batch, depth, height, width = b.dims(x)
    rows, columns = (size // block if isinstance(size, int) else b.div(size, block) for size in (height, width))
    split = b.reshape(x, [batch, depth, rows, block, columns, block])
    order = [0, 1, 3, 5, 2, 4] if c.attributes.get("mode", "DCR") == "CRD" else [0, 3, 5, 1, 2, 4]
    c.give(b.reshape(b.transpose(split, order), [batch, b.product([depth, block**2]), rows, columns]))


TABLE: Mapping[str, Lowering] = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
