"""Move Transposes behind elementwise operators, so that they meet and join another Transpose."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.editing import Edit, edit_graphs, node_of
from triune.graph.passes.run import GraphPass
from triune.graph.passes.transposes import permutation

_UNARY = frozenset(
    [
        *("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log"),
        *(
            "Mish",
            "Neg",
            "Not",
            "Reciprocal",
            "Relu",
            "Round",
            "Selu",
            "Sigmoid",
            "Sign",
            "Sin",
            "Softplus",
            "Softsign",
        ),
        *("Sqrt", "Swish", "Tanh", "Cast", "Clip"),
    ]
)
"""Operators that compute each element from the same element of the first operand; other operands must be single
numbers.
"""

_BINARY = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"])

_MOST_ELEMENTS = 1 << 16
"""Constants of more elements are not transposed."""


class SinkTransposes(GraphPass):
    """Given a Transpose, elementwise operators and a second Transpose. Result: the operators, then one Transpose, or
    none if the two undo each other. Given an elementwise operator of two values with equal Transposes. Result: the
    operator, then one Transpose.

    Every value on the way has one reader. Constants on the way are transposed, too.
    """

    name = "sink_transposes"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Move Transposes in `model`, in place, behind elementwise operators.

        The shapes of `model` must have been inferred; values that change have no types afterwards.
        """
        edit_graphs(model, _sink)
        return model


def _sink(edit: Edit) -> None:
    for node in list(edit.each("Transpose")):
        if not edit.is_computed(node.output[0]) or edit.producer(node.output[0]) is not node:
            continue
        _to_next(edit, node)
    for node in list(edit.each(*_BINARY)):
        _behind(edit, node)


def _to_next(edit: Edit, first: NodeProto) -> None:
    """Move a Transpose to the next one, if only elementwise operators are between the two."""
    perm = permutation(edit, first)
    if perm is None:
        return
    chain: list[tuple[NodeProto, list[str]]] = []
    value = first.output[0]
    while True:
        reader = edit.only_reader(value)
        if reader is None:
            return
        if reader.op_type == "Transpose":
            break
        inputs = _moved_inputs(edit, reader, value, perm, first.input[0] if not chain else chain[-1][0].output[0])
        if inputs is None:
            return
        chain.append((reader, inputs))
        value = reader.output[0]
    second = permutation(edit, reader)
    if not chain or second is None:
        return
    before = first.input[0]
    for node, inputs in chain:
        fresh = edit.name(f"{node.output[0]}/untransposed")
        moved = NodeProto.FromString(node.SerializeToString())
        moved.input[:] = [before if name == _HERE else _transposed(edit, name, perm) for name in inputs]
        moved.output[:] = [fresh]
        edit.replace(node, [moved])
        before = fresh
    last = node_of("Transpose", [before], list(reader.output), perm=[perm[axis] for axis in second])
    last.name = reader.name
    edit.replace(reader, [last])
    edit.drop(first)


_HERE = ""
"""What `_moved_inputs` returns in place of the transposed operand's name. `_to_next` replaces it by the name of the
operand before the Transpose.
"""


def _moved_inputs(edit: Edit, node: NodeProto, value: str, perm: Sequence[int], before: str) -> list[str] | None:
    """The inputs that an elementwise node has if it is moved before the Transpose, with the placeholder `_HERE` in
    place of `value`; None if it cannot be moved.
    """
    if node.domain not in ("", "ai.onnx") or list(node.input).count(value) != 1:
        return None
    position = list(node.input).index(value)
    others = [name for name in node.input if name and name != value]
    if node.op_type in _UNARY:
        if position != 0 or any(edit.values.static_shape(name) not in ((), (1,)) for name in others):
            return None
        if any(name == _HERE for name in node.input):
            return None
        return [_HERE if name == value else name for name in node.input]
    if node.op_type not in _BINARY or len(others) != 1:
        return None
    shape = edit.values.static_shape(others[0])
    if edit.values.tensor(others[0]) is None or shape is None or len(shape) > len(perm):
        return None
    is_single = all(size == 1 for size in shape)
    if not is_single and int(np.prod(shape, dtype=np.int64)) > _MOST_ELEMENTS:
        return None
    del before
    return [_HERE if name == value else name for name in node.input]


def _transposed(edit: Edit, name: str, perm: Sequence[int]) -> str:
    """A constant, transposed so that it broadcasts against the value before the Transpose; a single number stays as it
    is.
    """
    shape = edit.values.static_shape(name)
    if shape is None or all(size == 1 for size in shape):
        return name
    array = edit.constant(name)
    if array is None:
        return name
    whole = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return edit.weight(f"{name}/untransposed", np.ascontiguousarray(whole.transpose(np.argsort(perm))))


def _behind(edit: Edit, node: NodeProto) -> None:
    """Move two equal Transposes behind the node that is the only reader of both."""
    if len(node.input) != 2 or node.input[0] == node.input[1]:
        return
    found = [edit.producer(name, "Transpose") for name in node.input]
    if found[0] is None or found[1] is None:
        return
    perms = [permutation(edit, each) for each in found if each is not None]
    ranks = {edit.values.rank(name) for name in node.input}
    if perms[0] is None or perms[0] != perms[1] or len(ranks) != 1:
        return
    if any(edit.only_reader(name) is not node for name in node.input):
        return
    fresh = edit.name(f"{node.output[0]}/untransposed")
    moved = NodeProto.FromString(node.SerializeToString())
    moved.input[:] = [each.input[0] for each in found if each is not None]
    moved.output[:] = [fresh]
    edit.replace(node, [moved, node_of("Transpose", [fresh], list(node.output), perm=perms[0])])
    for each in found:
        if each is not None:
            edit.drop(each)
