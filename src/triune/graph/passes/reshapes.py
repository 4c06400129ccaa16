"""Join successive Reshapes, and write the target shapes whose sizes are known as constants."""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto

from triune.graph.dims import Dim, Dims
from triune.graph.editing import Edit, edit_graphs, node_of, opset_of
from triune.graph.index import Index
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

_OPPOSITE = {"Squeeze": "Unsqueeze", "Unsqueeze": "Squeeze"}

_AXES_ARE_INPUTS = 13


class Reshapes(GraphPass):
    """Given a Reshape of a Reshape, Flatten, Squeeze or Unsqueeze. Result: only the last Reshape. Given Squeeze and
    Unsqueeze of the same axes. Result: neither. Given a Reshape to a shape that nodes compute. Result: a constant
    shape, if all sizes except one are known or equal to sizes of the operand.
    """

    name = "reshapes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Join successive Reshapes in `model`, in place. Its shapes must have been inferred (`Infer`)."""
        if opset_of(model) >= _AXES_ARE_INPUTS:
            index = Index(model.graph, "reshapes")
            targets = {node.output[0]: _target(index, node) for node in model.graph.node if node.op_type == "Reshape"}
            edit_graphs(model, lambda edit: _write_shapes(edit, targets) if edit.graph is model.graph else None)
        edit_graphs(model, _join)
        return model


def _join(edit: Edit) -> None:
    for node in edit.each("Reshape"):
        target = edit.ints(node, 1, "shape")
        is_copied = target is None or 0 in target or attributes_of(node).get("allowzero", 0)
        while not is_copied and (first := _alone_before(edit, node, *_RESHAPING)) is not None:
            edit.set_inputs(node, [first.input[0], *list(node.input)[1:]])
            edit.drop(first)
    for node in edit.each(*_OPPOSITE):
        first = _alone_before(edit, node, _OPPOSITE[node.op_type])
        if first is None or (axes := _axes(edit, first)) is None or axes != _axes(edit, node):
            continue
        if edit.bypass(node, first.input[0]):
            edit.drop(first)


def _alone_before(edit: Edit, node: NodeProto, *op_types: str) -> NodeProto | None:
    """The node that computes the first operand of `node`, if it has one of the operators `op_types` and only `node`
    reads its result; else None.
    """
    first = edit.producer(node.input[0], *op_types)
    return first if first is not None and edit.only_reader(first.output[0]) is node else None


def _axes(edit: Edit, node: NodeProto) -> list[int] | None:
    """The axes that a Squeeze removes or an Unsqueeze inserts, as sorted, non-negative axes of the larger shape;
    None if they are not known.
    """
    axes = edit.ints(node, 1, "axes")
    larger = node.input[0] if node.op_type == "Squeeze" else node.output[0]
    rank = edit.values.rank(larger)
    return None if axes is None or rank is None else sorted(axis % rank for axis in axes)


def _target(index: Index, node: NodeProto) -> list[int] | None:
    """The constant shape of a Reshape whose shape is computed; None if the shape is constant already, or too little of
    it is known.
    """
    if len(node.input) < 2 or node.domain not in ("", "ai.onnx") or index.is_constant(node.input[1]):
        return None
    wanted = _known(index.elements(node.input[1]), index.dims(node.output[0]))
    given = index.dims(node.input[0]) or ()
    if wanted is None or any(isinstance(dim, int) and dim <= 0 for dim in wanted):
        return None
    copied: list[int] = []
    for axis, dim in enumerate(wanted):
        is_copy = isinstance(dim, str) and axis < len(given) and given[axis] == dim
        copied.append(dim if isinstance(dim, int) else 0 if is_copy else -1)
    if copied.count(-1) == 1 and 0 in copied:
        # Do not make the shape a constant: a size that is copied from the operand may be 0 at run time, and then the
        # size that -1 stands for cannot be derived.
        return None
    return copied if copied.count(-1) <= 1 else None


def _known(elements: Sequence[Dim] | None, dims: Dims | None) -> Dims | None:
    """The sizes of a Reshape's target, as far as its elements or the shape of the result are known."""
    if elements is None:
        return dims
    if dims is None or len(dims) != len(elements):
        return tuple(elements)
    # Where the shape has 0 or -1, take the size of the result.
    return tuple(
        dim if one is None or (isinstance(one, int) and one <= 0) or isinstance(dim, int) else one
        for one, dim in zip(elements, dims, strict=True)
    )


def _write_shapes(edit: Edit, targets: dict[str, list[int] | None]) -> None:
    for node in edit.each("Reshape"):
        target = targets.get(node.output[0])
        if target is None or attributes_of(node).get("allowzero", 0):
            continue
        shape = edit.ints_constant(f"{node.output[0]}/shape", target)
        reshape = node_of("Reshape", [node.input[0], shape], list(node.output))
        reshape.name = node.name
        edit.replace(node, [reshape])
