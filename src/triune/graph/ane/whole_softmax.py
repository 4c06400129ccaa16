"""A Softmax of a value that was flattened only for it."""

from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index, label, same_sizes
from triune.graph.ane.step import Step
from triune.graph.axes import positive
from triune.graph.values import attributes_of


class WholeSoftmax(Step):
    """Given Reshape to rows, Softmax over the last axis, Reshape back. Result: the Softmax alone.

    Before operator set 13 a Softmax flattened its operand, and this is what remains of it in models of that time.
    """

    name = "whole_softmax"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            source = _source(index, node) if node.op_type == "Reshape" else None
            if source is None:
                nodes.append(node)
                continue
            index.build.put("Softmax", [source], [node.output[0]], axis=-1)
            nodes += index.take()
            self._report.change(self.name, label(node), "Softmax without its Reshapes")
        index.replace(nodes)
        return model


def _source(index: Index, last: NodeProto) -> str | None:
    """The value whose Softmax `last` gives."""
    softmax = index.maker(last.input[0], "Softmax")
    first = index.maker(softmax.input[0], "Reshape") if softmax is not None else None
    if softmax is None or first is None:
        return None
    name = first.input[0]
    source, rows = index.dims(name), index.dims(softmax.output[0])
    if not source or not rows or rows[-1] is None or source[-1] != rows[-1]:
        return None
    axis = positive(int(attributes_of(softmax).get("axis", -1)), len(rows))
    is_back = _is_shape_of(index, last.input[1], name) or same_sizes(source, index.dims(last.output[0]))
    return name if axis == len(rows) - 1 and is_back else None


def _is_shape_of(index: Index, shape: str, name: str) -> bool:
    node = index.maker(shape, "Shape")
    return node is not None and node.input[0] == name and not node.attribute
