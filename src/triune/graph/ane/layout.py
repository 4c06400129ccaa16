"""Make elementwise operators, reductions, Softmax and the like compute in (B, C, 1, S), the Neural Engine's layout."""

from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from triune.graph.ane.borders import AXES, SWAP, Borders
from triune.graph.ane.flow import ALONG, BROADCAST, REDUCE, Flow
from triune.graph.ane.layout_pass import LayoutPass
from triune.graph.axes import positive
from triune.graph.index import Index, label


class Layout(LayoutPass):
    """Given elementwise operators, reductions, Softmax, Split, Slice and Concat of values (B, S, C), that read or
    produce values in the layout (B, C, 1, S).

    Result: the same operators on (B, C, 1, S), between Transposes, and with transposed constants. An operator is
    changed only if its Transposes are the inverses of its neighbours' Transposes, so that `Cancel` removes them.
    """

    name = "layout"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite elementwise operators, reductions and the like in `model`, in place, to compute on (B, C, 1, S)."""
        index = self._index(model.graph)
        borders = Borders(index)
        flow = Flow(index, borders, list(model.graph.node))
        transposed: dict[str, str] = {}
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            operands = flow.operands(node) if node.output and node.output[0] in flow.reached else None
            if operands is None or node.op_type == "LayerNormalization":
                nodes.append(node)
                continue
            inputs = [
                borders.enter(name) if name in operands else _constant_operand(index, transposed, node, name)
                for name in node.input
            ]
            outputs = [index.build.name() for _ in node.output]
            inside = _on_layout_axes(index, node, inputs, outputs)
            index.build.nodes.append(inside)
            for name, output in zip(node.output, outputs, strict=True):
                borders.leave(output, name)
            nodes += index.take()
            self._report.change(self.name, label(node), "computed in the layout")
        index.replace(nodes)
        return model


def _constant_operand(index: Index, transposed: dict[str, str], node: NodeProto, name: str) -> str:
    """The name that replaces the operand `name` when `node` is changed to compute on (B, C, 1, S): that of a transposed
    copy if the operand is a constant with axes to transpose, else `name` itself.
    """
    array = index.constant(name) if name and node.op_type in BROADCAST | ALONG else None
    is_size = node.op_type == "Split"
    if array is None or is_size or (array.size == 1 and node.op_type != "Concat"):
        return name
    if name not in transposed:
        transposed[name] = index.weight(_transposed(array))
    return transposed[name]


def _transposed(array: NDArray[Any]) -> NDArray[Any]:
    """Transpose a constant that broadcasts against (B, S, C) so that it broadcasts against (B, C, 1, S)."""
    with_three_axes = array.reshape((1,) * (3 - array.ndim) + array.shape)
    return with_three_axes.transpose(SWAP)[:, :, None, :]


def _on_layout_axes(index: Index, node: NodeProto, inputs: list[str], outputs: list[str]) -> NodeProto:
    """Copy a node with other inputs and outputs, and convert its axes of (B, S, C) to axes of (B, C, 1, S)."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = outputs[0]
    if node.op_type in REDUCE or node.op_type == "Slice":
        position = 1 if node.op_type in REDUCE else 3
        axes = index.ints(node, position) or []
        inputs[position] = index.build.ints(*(AXES[positive(axis, 3)] for axis in axes))
    elif node.op_type in ALONG:
        default = 0 if node.op_type == "Split" else -1
        given = next((each.i for each in node.attribute if each.name == "axis"), default)
        kept = [each for each in node.attribute if each.name != "axis"]
        del copy.attribute[:]
        copy.attribute.extend([*kept, helper.make_attribute("axis", AXES[positive(given, 3)])])
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.extend(outputs)
    return copy
