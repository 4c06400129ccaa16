"""Merge products of one value with several matrices into one product, as those of queries, keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.editing import Edit, edit_graphs, node_of
from triune.graph.passes.run import GraphPass
from triune.graph.weight_files import WeightFile

_SIZES_ARE_AN_INPUT = 13
"""From this operator set on, the sizes of a Split are an input, not an attribute."""

_LEAST = 3
"""At least this many products are merged: queries, keys and values."""


@dataclass(frozen=True, slots=True)
class _Projection:
    """x @ weight + bias.

    Attributes:
        product: the MatMul.
        add: the Add of the bias, the product's only reader; None if there is no bias.
        weight: the name of a constant of fp32, (inputs, outputs).
        bias: the name of a constant of fp32, (outputs); "" if there is none.
        size: the number of outputs.
    """

    product: NodeProto
    add: NodeProto | None
    weight: str
    bias: str
    size: int

    @property
    def result(self) -> str:
        """The name of the result."""
        return (self.add or self.product).output[0]


class MergeProjections(GraphPass):
    """Given three or more MatMuls of one value with constant matrices, all with or all without a constant bias. Result:
    one MatMul with the joined matrix, one Add, and a Split.
    """

    name = "merge_projections"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for the joined matrices."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Merge MatMuls of one value in `model`, in place. `Tidy` removes matrices that nothing reads any more."""
        edit_graphs(model, self._merge)
        return model

    def _merge(self, edit: Edit) -> None:
        groups: dict[tuple[str, int, bool], list[_Projection]] = {}
        for node in edit.each("MatMul"):
            found = _projection(edit, node)
            if found is not None:
                shape = edit.values.static_shape(found.weight) or (0,)
                groups.setdefault((node.input[0], shape[0], bool(found.bias)), []).append(found)
        for (x, _, _), group in groups.items():
            if len(group) >= _LEAST:
                self._join(edit, x, group)

    def _join(self, edit: Edit, x: str, group: Sequence[_Projection]) -> None:
        first = group[0].product
        wish = f"{first.output[0]}/merged"
        matrix = np.concatenate([_constant(edit, each.weight) for each in group], axis=1)
        sizes = [each.size for each in group]
        product = edit.name(wish)
        nodes = [node_of("MatMul", [x, edit.weight(f"{wish}/weight", matrix, self._file)], [product])]
        if group[0].bias:
            bias = np.concatenate([_constant(edit, each.bias) for each in group])
            total = edit.name(f"{wish}/sum")
            nodes.append(node_of("Add", [product, edit.weight(f"{wish}/bias", bias)], [total]))
            product = total
        results = [each.result for each in group]
        if edit.opset >= _SIZES_ARE_AN_INPUT:
            split = [product, edit.ints_constant(f"{wish}/sizes", sizes)]
            nodes.append(node_of("Split", split, results, axis=-1))
        else:
            nodes.append(node_of("Split", [product], results, axis=-1, split=sizes))
        nodes[-1].name = f"{wish}/split"
        for each in group:
            if each.add is not None:
                edit.drop(each.add)
            if each.product is not first:
                edit.drop(each.product)
        edit.replace(first, nodes)


def _projection(edit: Edit, node: NodeProto) -> _Projection | None:
    weight = node.input[1]
    shape = edit.values.static_shape(weight)
    is_constant = edit.values.tensor(weight) is not None and edit.values.tensor(node.input[0]) is None
    if not is_constant or shape is None or len(shape) != 2 or edit.values.elem_type(weight) != TensorProto.FLOAT:
        return None
    if (edit.values.rank(node.input[0]) or 0) < 2:
        return None
    add = edit.only_reader(node.output[0], "Add")
    for name in add.input if add is not None else ():
        is_bias = edit.values.tensor(name) is not None and edit.values.static_shape(name) == (shape[1],)
        if is_bias and name != node.output[0]:
            return _Projection(node, add, weight, name, shape[1])
    return _Projection(node, None, weight, "", shape[1])


def _constant(edit: Edit, name: str) -> np.ndarray:
    array = edit.constant(name)
    assert array is not None, f"'{name}' was a constant"
    return array
