"""Join constant factors of DOUBLE before they are converted to fp32."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.core.datatypes import Array
from triune.graph.editing import Edit, edit_graphs, node_of
from triune.graph.passes.run import GraphPass
from triune.graph.weight_files import WeightFile


class DoubleFactors(GraphPass):
    """Given products and quotients of DOUBLE by several constants, one after the other: x * m / 2**e, as fixed-point
    arithmetic writes it (I-BERT). Result: one product x * (m / 2**e), if fp32 holds its constant.

    Between the two operations numbers may exceed fp32 although the result does not, and so may the constants.
    """

    name = "double_factors"

    def __init__(self, file: WeightFile | None = None) -> None:
        """`file` is the scratch file for new large weights; without it they are stored in the model."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Join such constants in `model`, in place. Its types must have been inferred (`Infer`)."""
        edit_graphs(model, self._join)
        return model

    def _join(self, edit: Edit) -> None:
        joined_before: dict[str, tuple[str, Array]] = {}
        for node in edit.each("Mul", "Div"):
            outer = _scaled(edit, node)
            if outer is None:
                continue
            x, factor = outer
            first = edit.producer(x, "Mul", "Div")
            if first is None or edit.only_reader(x) is not node:
                continue
            inner = joined_before.get(x) or _scaled(edit, first)
            if inner is None:
                continue
            with np.errstate(all="ignore"):
                joined = factor * inner[1]
            if _is_held(joined) and joined.size <= max(factor.size, inner[1].size):
                weight = edit.weight(f"{node.output[0]}/factor", joined, self._file)
                product = node_of("Mul", [inner[0], weight], list(node.output))
                product.name = node.name
                edit.replace(node, [product])
                edit.drop(first)
                joined_before[node.output[0]] = (inner[0], joined)


def _scaled(edit: Edit, node: NodeProto) -> tuple[str, Array] | None:
    """Read a Mul or Div of DOUBLE as x * factor; None if no operand is a constant by which x is multiplied."""
    if node.domain or edit.values.elem_type(node.output[0]) != TensorProto.DOUBLE:
        return None
    left, right = (edit.constant(name) for name in node.input)
    if node.op_type == "Div":
        with np.errstate(all="ignore"):
            return None if right is None or left is not None else (node.input[0], 1 / right)
    if (left is None) == (right is None):
        return None
    return (node.input[0], right) if right is not None else (node.input[1], left) if left is not None else None


def _is_held(array: Array) -> bool:
    """Whether fp32 holds all elements as normal numbers; zeros of factors stay, too."""
    limits = np.finfo(np.float32)
    sizes = np.abs(array)
    return bool(((sizes == 0) | ((sizes >= float(limits.tiny)) & (sizes <= float(limits.max)))).all())
