"""Replace the nodes that exporters write for rotary embeddings by RotaryEmbedding."""

from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.editing import node_of, opset_of
from triune.graph.index import Index
from triune.graph.match.rotary import RotaryEmbedding, has_equal_halves, match_rotary
from triune.graph.passes.run import GraphPass

FIRST_OPSET = 23
"""The first operator set with RotaryEmbedding."""


class RecoverRotary(GraphPass):
    """Given x * cos + rotate_half(x) * sin in fp32, of (batch, heads, steps, width) and tables (batch or 1, 1, steps,
    width) whose halves are equal. Result: RotaryEmbedding with one half of each table. Subgraphs stay as they are.
    """

    name = "recover_rotary"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write RotaryEmbedding in place of the pattern in `model`, if its operator set has RotaryEmbedding.

        `model` is changed. `Tidy` removes what nothing reads any more.
        """
        if opset_of(model) < FIRST_OPSET:
            return model
        index = Index(model.graph, self.name)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            found = next((each for each in match_rotary(index, node, lambda _: False) if _fits(index, each)), None)
            if found is None:
                nodes.append(node)
                continue
            tables = [_half(index, found, table) for table in (found.cos, found.sin)]
            nodes += [*index.take(), node_of("RotaryEmbedding", [found.x, *tables], [node.output[0]])]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        index.replace(copies)
        return model


def _fits(index: Index, found: RotaryEmbedding) -> bool:
    dims = index.dims(found.x)
    if dims is None or len(dims) != 4 or not isinstance(dims[3], int) or dims[3] % 2:
        return False
    if index.values.elem_type(found.x) != TensorProto.FLOAT:
        return False
    for name in (found.cos, found.sin):
        table = index.dims(name)
        if table is None or len(table) != 4 or table[1] != 1 or table[2:] != dims[2:] or table[2] is None:
            return False
        if table[0] not in (1, dims[0]) or table[0] is None or not has_equal_halves(index, name, dims[3]):
            return False
    return True


def _half(index: Index, found: RotaryEmbedding, table: str) -> str:
    """Build the first half of a table of cosines or sines, (batch, steps, width / 2); returns its name."""
    build = index.build
    dims, sizes = index.dims(found.x), index.dims(table)
    assert dims is not None, "`_fits` knows the shapes"
    assert sizes is not None, "`_fits` knows the shapes"
    width = dims[3]
    assert isinstance(width, int), "`_fits` knows the width"
    half = build.op("Slice", table, build.ints(0), build.ints(width // 2), build.ints(3), build.ints(1))
    half = build.op("Squeeze", half, build.ints(1))
    if sizes[0] == dims[0]:
        return half
    batch = build.op("Shape", found.x, start=0, end=1)
    return build.op("Expand", half, build.op("Concat", batch, build.ints(1, 1), axis=0))
