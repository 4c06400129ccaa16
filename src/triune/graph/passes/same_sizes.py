"""Replace the difference of two sizes that are always equal by zeros."""

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from triune.graph.index import INTS, Index
from triune.graph.own_names import with_own_names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values
from triune.graph.weights import Large


class SameSizes(GraphPass):
    """Given a Sub of sizes of which none is known as a number, and which follow from one size of one input: the number
    of keys less the width of their mask, by which ONNX's function for Attention pads the mask. Result: zeros.

    Sizes of several inputs that have one name are not trusted to be equal, since no runtime refuses others.
    """

    name = "same_sizes"

    def __init__(self, large: Large) -> None:
        """`large` has the large constants, which are kept out of the graph while passes run."""
        self._large = large

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace such differences in `model`, in place. Its shapes must have been inferred (`Infer`)."""
        values = Values(model.graph)
        if not any(_is_difference(node, values) for node in model.graph.node):
            return model
        index = Index(with_own_names(model)[0].graph, "same_sizes", self._large)
        for node in model.graph.node:
            if not _is_difference(node, values):
                continue
            left, right = (index.elements(name) for name in node.input)
            if left is not None and left == right and None not in left:
                dtype = helper.tensor_dtype_to_np_dtype(values.elem_type(node.input[0]))
                shape = () if values.rank(node.output[0]) == 0 else len(left)
                zeros = numpy_helper.from_array(np.zeros(shape, dtype), node.output[0])
                node.CopyFrom(helper.make_node("Constant", [], [node.output[0]], value=zeros))
        return model


def _is_difference(node: NodeProto, values: Values) -> bool:
    """Whether a node subtracts two integers, or two vectors of integers, that are both computed."""
    return (
        node.op_type == "Sub"
        and not node.domain
        and values.rank(node.output[0]) in (0, 1)
        and all(values.elem_type(name) in INTS and values.tensor(name) is None for name in node.input)
    )
