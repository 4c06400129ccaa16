"""Remove nodes that pass their operand on unchanged."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.axes import positive
from triune.graph.editing import Edit, edit_graphs, node_of
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

_FIRST_TRAINED_BY_INPUT = 12
"""From this operator set on, Dropout has an input that decides whether it drops."""

_ALONE = frozenset(["Identity", "Sum", "Max", "Min", "Mean", "Concat"])
"""Operators whose result is their operand, if it is the only one."""

_IDEMPOTENT = frozenset(["Relu", "Abs", "Floor", "Ceil", "Round", "Sign", "Clip"])
"""Idempotent operators: applied again with the same limits, they change nothing."""

_FLOATS = frozenset([TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])

_MOST_ELEMENTS = 1 << 12
"""Constants of more elements are not searched for a number other than 0 or 1."""


class Neutral(GraphPass):
    """Given nodes whose result equals their operand: x * 1, x - 0, Dropout, a Cast to the same type, a Transpose,
    Reshape, Slice, Pad or Tile that changes nothing, Relu of Relu. Result: their consumers read the operand. If the
    names of both operand and result must stay, an Identity remains.

    A sum x + 0.0 is kept, since it turns -0.0 into 0.0. A node is also kept if its shape or type may change.
    """

    name = "neutral"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Remove nodes that change nothing from `model`, in place. Its shapes must have been inferred (`Infer`)."""
        edit_graphs(model, _remove)
        return model


def _remove(edit: Edit) -> None:
    for node in edit.each():
        given = [name for name in node.output if name]
        if len(given) != 1 or given[0] != node.output[0] or not node.input or not node.input[0]:
            continue
        name = _handed_on(edit, node)
        if name is not None and not edit.bypass(node, name) and node.op_type != "Identity":
            edit.replace(node, [node_of("Identity", [name], [given[0]])])


def _handed_on(edit: Edit, node: NodeProto) -> str | None:
    """The operand that is equal to a node's result; None if the node changes it, or may do so."""
    x = node.input[0]
    attributes = attributes_of(node)
    match node.op_type:
        case op if op in _ALONE:
            return x if len([name for name in node.input if name]) == 1 else None
        case "Dropout":
            return x if _is_idle_dropout(edit, node) else None
        case "Cast":
            return x if edit.values.elem_type(x) == attributes.get("to") else None
        case "Transpose":
            perm = attributes.get("perm")
            return x if perm is not None and perm == sorted(perm) else None
        case "Mul" | "Div" | "Pow" | "Add" | "Sub":
            return _neutral_operand(edit, node)
        case "Reshape" | "Flatten" | "Expand" | "Tile" | "Slice" | "Pad":
            return x if _is_same_shape(edit, node, attributes) else None
        case op if op in _IDEMPOTENT:
            before = edit.producer(x, op)
            is_same = before is not None and list(before.input)[1:] == list(node.input)[1:]
            return x if is_same and before is not None and list(before.attribute) == list(node.attribute) else None
        case _:
            return None


def _is_idle_dropout(edit: Edit, node: NodeProto) -> bool:
    if edit.opset < _FIRST_TRAINED_BY_INPUT or len(node.input) < 3 or not node.input[2]:
        return True
    return edit.scalar(node.input[2]) == 0


def _neutral_operand(edit: Edit, node: NodeProto) -> str | None:
    """The operand that a node passes on unchanged: of a Mul or Div by 1, a Pow with exponent 1, a Sub of 0, or an Add
    of 0 in integers or -0.0; else None.
    """
    neutral = 1 if node.op_type in ("Mul", "Div", "Pow") else 0
    orders = ((0, 1), (1, 0)) if node.op_type in ("Mul", "Add") else ((0, 1),)
    for position, other in orders:
        x, by = node.input[position], node.input[other]
        shape, kind = edit.values.shape(x), edit.values.elem_type(x)
        by_shape = edit.values.static_shape(by)
        if not kind or shape is None or by_shape is None or not _is_within(by_shape, shape):
            continue
        if edit.values.tensor(by) is None or np.prod(by_shape, dtype=np.int64) > _MOST_ELEMENTS:
            continue
        array = edit.constant(by)
        if array is None or array.dtype.kind not in "iuf" or not np.all(array == neutral):
            continue
        if kind in _FLOATS and neutral == 0:
            is_negative = bool(np.all(np.signbit(array)))
            is_positive = not np.any(np.signbit(array))
            if not (is_negative if node.op_type == "Add" else is_positive):
                continue
        return x
    return None


def _is_within(small: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Whether an operand of shape `small` broadcasts to `shape`, the other operand's shape, and does not change it."""
    pairs = zip(reversed(small), reversed(shape), strict=False)
    return len(small) <= len(shape) and all(size in (1, other) for size, other in pairs)


def _is_same_shape(edit: Edit, node: NodeProto, attributes: Mapping[str, object]) -> bool:
    x, result = node.input[0], node.output[0]
    shape = edit.values.shape(x)
    match node.op_type:
        case "Reshape":
            target = edit.ints(node, 1, "shape")
            is_static = shape is not None and shape == edit.values.static_shape(result)
            return is_static or (target is not None and shape is not None and _keeps(target, shape, attributes))
        case "Flatten":
            return shape is not None and len(shape) == 2 and attributes.get("axis", 1) == 1
        case "Expand":
            target = edit.ints(node, 1, "shape")
            is_static = shape is not None and shape == edit.values.static_shape(result)
            is_of_ones = target is not None and shape is not None and len(target) <= len(shape) and set(target) <= {1}
            return is_static or is_of_ones
        case "Tile":
            repeats = edit.ints(node, 1, "repeats") if len(node.input) <= 2 else None
            return repeats is not None and set(repeats) == {1}
        case "Pad":
            pads = edit.ints(node, 1, "pads")
            return pads is not None and not any(pads)
        case _:
            return _takes_all(edit, node, shape)


def _keeps(target: Sequence[int], shape: Sequence[int | None], attributes: Mapping[str, object]) -> bool:
    """Whether Reshape to `target` keeps a shape: each target size is the axis's own size, 0 (which copies it), or the
    only -1.
    """
    if len(target) != len(shape) or (attributes.get("allowzero", 0) and 0 in target):
        return False
    others = [(wanted, size) for wanted, size in zip(target, shape, strict=True) if wanted not in (0, size)]
    return not others or (len(others) == 1 and others[0][0] == -1)


def _takes_all(edit: Edit, node: NodeProto, shape: Sequence[int | None] | None) -> bool:
    starts, ends = edit.ints(node, 1, "starts"), edit.ints(node, 2, "ends")
    axes = edit.ints(node, 3, "axes")
    steps = edit.ints(node, 4, "steps") if len(node.input) > 4 and node.input[4] else [1] * len(starts or ())
    if starts is None or ends is None or steps is None or shape is None:
        return False
    if axes is None:
        if len(node.input) > 3 and node.input[3]:
            return False
        axes = list(range(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[positive(axis, len(shape))]
        is_whole = end >= (2**31 - 1 if size is None else size)
        if start != 0 or step != 1 or not is_whole:
            return False
    return True
