"""A Transpose of a value that was made rank 3 only for it."""

from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index, label, perm_of, same_sizes
from triune.graph.ane.step import Step


class WholeTranspose(Step):
    """Given Reshape of (a, b, S, width) to (a * b, S, width), Transpose [0, 2, 1], Reshape to (a, b, width, S).

    Result: Transpose [0, 1, 3, 2]. So torch's newer exporter turns the keys of an attention.
    """

    name = "whole_transpose"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            source = _source(index, node) if node.op_type == "Reshape" else None
            if source is None:
                nodes.append(node)
                continue
            index.build.put("Transpose", [source], [node.output[0]], perm=[0, 1, 3, 2])
            nodes += index.take()
            self._report.change(self.name, label(node), "Transpose without its Reshapes")
        index.replace(nodes)
        return model


def _source(index: Index, last: NodeProto) -> str | None:
    """The value (a, b, S, width) of which `last` gives (a, b, width, S)."""
    turn = index.maker(last.input[0], "Transpose")
    first = index.maker(turn.input[0], "Reshape") if turn is not None else None
    if turn is None or first is None or perm_of(turn, 3) != (0, 2, 1):
        return None
    dims, rows, result = (index.dims(name) for name in (first.input[0], first.output[0], last.output[0]))
    if dims is None or rows is None or result is None or len(dims) != 4 or len(rows) != 3 or len(result) != 4:
        return None
    is_merged = None not in dims[2:] and tuple(dims[2:]) == tuple(rows[1:])
    is_back = same_sizes(result, (dims[0], dims[1], dims[3], dims[2]))
    return first.input[0] if is_merged and is_back else None
