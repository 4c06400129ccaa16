"""How the results of nodes that select and reorder elements depend on an input of the model (`Curve`)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from triune.core.datatypes import Array
from triune.graph.cancellation.curve import Curve
from triune.graph.values import Values, attributes_of

OPERATORS = frozenset(
    [
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Expand", "Tile", "Gather"),
        *("GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
    ]
)
"""The operators that `reordered` knows: each element of their results is an element of the first operand."""

SELECTIONS = frozenset(
    [
        *("Pad", "Trilu", "MaxPool", "AveragePool", "GlobalAveragePool", "ReverseSequence", "TopK", "Resize"),
        *("ReduceMax", "ReduceMin", "ReduceMean"),
    ]
)
"""The operators that `selected` supports: each element of their results is an element of the first operand, or a mean
of several.
"""

_MOST = 1 << 19
"""The most elements of a value for which it is recorded from which input element each one is computed. Nothing is known
of larger values, unless a Transpose computes them, or all their elements are the same function of the input.
"""


def reordered(node: NodeProto, operand: Curve, values: Values, version: int) -> dict[str, Curve]:
    """How the results of a node that reorders elements depend on the input (`Curve`), by the result's name; {} if its
    other operands are not constant, or sizes are not known.
    """
    shape = values.static_shape(node.input[0])
    constants = [values.constant(name) if name else None for name in node.input[1:]]
    if any(name and array is None for name, array in zip(node.input[1:], constants, strict=True)):
        return {}
    if (shape is None or math.prod(shape) > _MOST) and node.op_type == "Transpose":
        return _transposed(node, operand)
    sizes = operand.values.shape[1:]
    is_uniform = all(size == 1 for size in sizes)
    if shape is None or math.prod(shape) > _MOST:
        ranks = {name: values.rank(name) for name in node.output if name}
        if not is_uniform or any(rank is None for rank in ranks.values()):
            return {}
        return {name: _uniform(node, operand, name, rank or 0, None) for name, rank in ranks.items()}
    if len(shape) != len(sizes):
        return {}
    own = np.arange(math.prod(shape)).reshape(shape)
    try:
        orders = _run(node, own, constants, version)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # Nothing is known of the results if the node is not valid, or if the reference evaluator lacks its operator.
        return {}
    found: dict[str, Curve] = {}
    for name, order in zip(node.output, orders, strict=True):
        before = _places(operand, shape)
        known = None if before is None else before.reshape(-1)[order]
        if is_uniform:
            found[name] = _uniform(node, operand, name, order.ndim, known)
        elif len(operand.numbers) * max(order.size, own.size) <= _MOST:
            found[name] = replace(
                operand,
                **{
                    part: np.broadcast_to(array, (len(array), *own.shape)).reshape(len(array), -1)[:, order]
                    for part, array in _arrays(operand).items()
                },
                nodes=(*operand.nodes, node),
                layout=name,
                places=known,
                crossed=None,
            )
    return found


def selected(node: NodeProto, operand: Curve, values: Values) -> Curve | None:
    """How the first result of a node that selects elements depends on the input (`Curve`); None if the elements that it
    may select are not all the same function of the input.
    """
    name = node.output[0]
    shape = values.shape(name)
    sizes = operand.values.shape[1:]
    if shape is None:
        return None
    if all(size == 1 for size in sizes):
        return _uniform(node, operand, name, len(shape), None)
    if len(shape) != len(sizes) or any(size not in (1, other) for size, other in zip(sizes, shape, strict=True)):
        return None
    return replace(operand, nodes=(*operand.nodes, node), layout=name, places=None, crossed=None)


def concatenated(node: NodeProto, operands: Sequence[Curve], values: Values) -> Curve | None:
    """How the result of a Concat depends on the input (`Curve`); None if sizes are not known."""
    shapes = [values.static_shape(name) for name in node.input]
    size = sum(math.prod(shape or ()) for shape in shapes)
    first = operands[0]
    if any(shape is None for shape in shapes):
        return None
    if len(first.numbers) * size > _MOST:
        return None
    axis = int(attributes_of(node).get("axis", 0)) % len(shapes[0] or (1,))
    joined = {
        part: np.concatenate(
            [
                np.broadcast_to(_arrays(each)[part], (len(each.numbers), *(shape or ())))
                for each, shape in zip(operands, shapes, strict=True)
            ],
            axis=axis + 1,
        )
        for part in _arrays(first)
    }
    places = [_places(each, shape or ()) for each, shape in zip(operands, shapes, strict=True)]
    known = [each for each in places if each is not None]
    nodes = {each.output[0]: each for operand in operands for each in operand.nodes}
    return replace(
        first,
        sources=tuple(dict.fromkeys(name for each in operands for name in each.sources)),
        first=None,
        **joined,
        nodes=(*nodes.values(), node),
        layout=node.output[0],
        places=np.concatenate(known, axis=axis) if len(known) == len(places) else None,
        crossed=None,
        is_scaled=any(each.is_scaled for each in operands),
    )


def _places(operand: Curve, shape: tuple[int, ...]) -> Array | None:
    """For each element of a value of this shape, which input element it is computed from (`Curve.places`); None if that
    is not known.
    """
    if operand.places is not None:
        try:
            # Broadcast the indices of the input elements as the node may have broadcast its operand, for instance by
            # adding a constant of more dimensions.
            return np.broadcast_to(operand.places, shape)
        except ValueError:
            return None
    if not operand.is_in_place or operand.first is None:
        return None
    return operand.first + np.arange(math.prod(shape)).reshape(shape)


def _arrays(operand: Curve) -> dict[str, Array]:
    return {"values": operand.values, "errors": operand.errors, "is_zero": operand.is_zero}


def _uniform(node: NodeProto, operand: Curve, name: str, rank: int, places: Array | None) -> Curve:
    shaped = {part: array.reshape(-1, *(1,) * rank) for part, array in _arrays(operand).items()}
    nodes = (*operand.nodes, node)
    return replace(operand, **shaped, nodes=nodes, layout=name, places=places, crossed=None)


def _transposed(node: NodeProto, operand: Curve) -> dict[str, Curve]:
    rank = operand.values.ndim - 1
    order = attributes_of(node).get("perm", list(range(rank))[::-1])
    turned = {part: array.transpose(0, *(axis + 1 for axis in order)) for part, array in _arrays(operand).items()}
    name = node.output[0]
    return {name: replace(operand, **turned, nodes=(*operand.nodes, node), layout=name, places=None, crossed=None)}


def _run(node: NodeProto, data: Array, constants: Sequence[Array | None], version: int) -> list[Array]:
    """Compute a node with `data` as its first input and `constants` as the others, in ONNX's reference evaluator."""
    alone = NodeProto()
    alone.CopyFrom(node)
    arrays: dict[str, Array] = {"data": data}
    alone.input[0] = "data"
    for position, array in enumerate(constants, 1):
        if array is not None:
            alone.input[position] = f"constant {position}"
            arrays[f"constant {position}"] = array
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in node.output]
    graph = helper.make_graph([alone], "reordered", inputs, outputs)
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    evaluator: Any = ReferenceEvaluator(model)
    return [np.asarray(each) for each in evaluator.run(None, arrays)]
