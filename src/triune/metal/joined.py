"""Neighbours in a graph that MLX computes as one operation: a product and its bias, and a sum and its layer
normalization.
"""

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, helper

from triune.graph.axes import positive
from triune.graph.editing import Edit, edit_graphs
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of
from triune.metal.builder import biased_product
from triune.metal.context import Context, Lowering, builder_of
from triune.metal.kernels.add_norm import add_layer_norm

DOMAIN = "triune.mlx"

LINEAR, SUM_NORM = "Linear", "SumLayerNormalization"


class JoinNeighbours(GraphPass):
    """Given core ops. Result: two operators of the domain "triune.mlx".

    - Linear: x @ weight + bias, with a constant matrix and a constant vector. Inputs: x, weight, bias.
    - SumLayerNormalization: a sum of two computed values and its LayerNormalization over the last axis. Inputs: both
      terms, the scale, perhaps the bias; outputs: the sum, if anything else reads it, and the normalized sum.
    """

    name = "join_neighbours"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Join neighbours in `model`, in place."""
        edit_graphs(model, _join)
        return model


def _join(edit: Edit) -> None:
    for add in edit.each("Add"):
        product_node = _product_of(edit, add)
        if product_node is not None:
            bias = next(name for name in add.input if name != product_node.output[0])
            inputs = [*product_node.input, bias]
            edit.replace(add, [helper.make_node(LINEAR, inputs, add.output, name=add.name, domain=DOMAIN)])
            edit.drop(product_node)
    for norm in edit.each("LayerNormalization"):
        add = edit.producer(norm.input[0], "Add")
        if add is None or not _is_of_last_axis(edit, norm) or any(edit.values.tensor(name) for name in add.input):
            continue
        total = add.output[0]
        is_read = len(edit.readers(total)) > 1 or edit.is_kept(total)
        inputs, outputs = [*add.input, *norm.input[1:]], [total if is_read else "", norm.output[0]]
        epsilon = float(attributes_of(norm).get("epsilon", 1e-5))
        joined = helper.make_node(SUM_NORM, inputs, outputs, name=norm.name, domain=DOMAIN, epsilon=epsilon)
        edit.replace(add, [joined])
        edit.drop(norm)


def _product_of(edit: Edit, add: NodeProto) -> NodeProto | None:
    """The product to which a node adds the bias; None if the node adds anything else."""
    values = edit.values
    for name, bias in (add.input, list(add.input)[::-1]):
        node = edit.producer(name, "MatMul")
        if node is None or edit.only_reader(name) is not add or name == bias:
            continue
        weight, shape = node.input[1], values.static_shape(node.input[1])
        if values.tensor(weight) is None or values.tensor(bias) is None or shape is None or len(shape) != 2:
            continue
        if values.static_shape(bias) == shape[1:] and values.elem_type(bias) == values.elem_type(weight):
            return node
    return None


def _is_of_last_axis(edit: Edit, norm: NodeProto) -> bool:
    """Whether a LayerNormalization is over the last axis alone, and gives only its first result."""
    rank, scale = edit.values.rank(norm.input[0]), norm.input[1]
    axis = int(attributes_of(norm).get("axis", -1))
    is_last = axis == -1 or (rank is not None and positive(axis, rank) == rank - 1)
    return is_last and not any(norm.output[1:]) and edit.values.rank(scale) == 1


def _linear(c: Context) -> None:
    c.give(biased_product(*builder_of(c).paired(c.input(0), c.input(1)), c.input(2)))


def _sum_norm(c: Context) -> None:
    x, y, weight = (c.input(index) for index in range(3))
    epsilon = float(c.attributes["epsilon"])
    total, normed = add_layer_norm(x, y, weight, c.input(3) if c.has(3) else None, epsilon, keeps_sum=c.wants(0))
    c.give(total, 0)
    c.give(normed, 1)


TABLE: Mapping[str, Lowering] = {LINEAR: _linear, SUM_NORM: _sum_norm}
