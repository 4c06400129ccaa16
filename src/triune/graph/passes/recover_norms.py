"""Replace the nodes that exporters write for LayerNormalization and RMSNormalization by these operators."""

from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.editing import Edit, edit_graphs, node_of, opset_of
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

FIRST_WITH_LAYER_NORM = 17
"""The first operator set with LayerNormalization."""

FIRST_WITH_RMS_NORM = 23
"""The first operator set with RMSNormalization."""


class RecoverLayerNorm(GraphPass):
    """Given (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias in fp32, over the last axis. Result:
    LayerNormalization. The bias may be missing.
    """

    name = "recover_layer_norm"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write LayerNormalization in place of the pattern in `model`, if its operator set has LayerNormalization.

        `model` is changed. `Tidy` removes what nothing reads any more.
        """
        if opset_of(model) >= FIRST_WITH_LAYER_NORM:
            edit_graphs(model, _recover_layer_norms)
        return model


class RecoverRmsNorm(GraphPass):
    """Given x / sqrt(mean(x^2) + epsilon) * scale in fp32, over the last axis. Result: RMSNormalization."""

    name = "recover_rms_norm"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write RMSNormalization in place of the pattern in `model`, if its operator set has RMSNormalization.

        `model` is changed. `Tidy` removes what nothing reads any more.
        """
        if opset_of(model) >= FIRST_WITH_RMS_NORM:
            edit_graphs(model, _recover_rms_norms)
        return model


@dataclass(frozen=True, slots=True)
class _Normalized:
    """z / sqrt(mean(z^2) + epsilon) * scale.

    Attributes:
        z: the name of the value that is normalized.
        scale: the name of a vector of the size of the last axis.
        epsilon: the constant that is added to the mean.
    """

    z: str
    scale: str
    epsilon: float


def _recover_layer_norms(edit: Edit) -> None:
    taken: set[str] = set()
    for node in edit.each("Add"):
        for name, bias in (node.input, list(node.input)[::-1]):
            mul = edit.producer(name, "Mul")
            found = None if mul is None or edit.only_reader(name) is not node else _scaled(edit, mul)
            x = None if found is None else _uncentred(edit, found.z)
            if found is None or x is None or not _is_vector(edit, bias, x):
                continue
            taken.add(name)
            edit.replace(node, [_layer_norm(found, x, [bias], node.output[0])])
            break
    for node in edit.each("Mul"):
        if node.output[0] in taken:
            continue
        found = _scaled(edit, node)
        x = None if found is None else _uncentred(edit, found.z)
        if found is not None and x is not None:
            edit.replace(node, [_layer_norm(found, x, [], node.output[0])])


def _layer_norm(found: _Normalized, x: str, bias: list[str], result: str) -> NodeProto:
    return node_of("LayerNormalization", [x, found.scale, *bias], [result], axis=-1, epsilon=found.epsilon)


def _recover_rms_norms(edit: Edit) -> None:
    for node in edit.each("Mul"):
        found = _scaled(edit, node)
        # If z is a value minus its mean, the pattern is a layer normalization.
        if found is not None and _uncentred(edit, found.z) is None:
            norm = node_of("RMSNormalization", [found.z, found.scale], [node.output[0]], axis=-1, epsilon=found.epsilon)
            edit.replace(node, [norm])


def _scaled(edit: Edit, mul: NodeProto) -> _Normalized | None:
    """The normalization that ends with this Mul by a scale, or None."""
    if edit.values.elem_type(mul.output[0]) != TensorProto.FLOAT:
        return None
    for name, scale in (mul.input, list(mul.input)[::-1]):
        if edit.only_reader(name) is not mul:
            continue
        found = _divided(edit, name)
        if found is not None and _is_vector(edit, scale, found[0]):
            return _Normalized(found[0], scale, found[1])
    return None


def _divided(edit: Edit, name: str) -> tuple[str, float] | None:
    """If the value `name` is z / sqrt(mean(z^2) + epsilon), the name of z, and epsilon; else None."""
    node = edit.producer(name, "Div", "Mul")
    if node is None:
        return None
    for position in (0,) if node.op_type == "Div" else (0, 1):
        z, divisor = node.input[position], node.input[1 - position]
        total = _under_root(edit, divisor, is_inverse=node.op_type == "Mul")
        add = None if total is None else edit.producer(total, "Add")
        for mean, constant in (add.input, list(add.input)[::-1]) if add is not None else ():
            epsilon = edit.scalar(constant)
            square = _mean_of_last(edit, mean)
            if epsilon is not None and square is not None and _is_square(edit, square, z):
                return z, epsilon
    return None


def _under_root(edit: Edit, name: str, *, is_inverse: bool) -> str | None:
    """If the value `name` is sqrt(v), or with `is_inverse` 1 / sqrt(v), the name of v; else None."""
    if not is_inverse:
        root = edit.producer(name, "Sqrt")
        if root is not None:
            return root.input[0]
        power = edit.producer(name, "Pow")
        return power.input[0] if power is not None and edit.scalar(power.input[1]) == 0.5 else None
    node = edit.producer(name, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op_type == "Pow":
        return node.input[0] if edit.scalar(node.input[1]) == -0.5 else None
    if node.op_type == "Div" and edit.scalar(node.input[0]) != 1:
        return None
    return _under_root(edit, node.input[-1], is_inverse=False)


def _mean_of_last(edit: Edit, name: str) -> str | None:
    """If the value `name` is the ReduceMean of a value over the last axis, with keepdims, the name of that value; else
    None.
    """
    mean = edit.producer(name, "ReduceMean")
    if mean is None or not attributes_of(mean).get("keepdims", 1):
        return None
    rank = edit.values.rank(mean.input[0])
    axes = edit.ints(mean, 1, "axes")
    return mean.input[0] if rank and axes in ([-1], [rank - 1]) else None


def _is_square(edit: Edit, name: str, z: str) -> bool:
    node = edit.producer(name, "Mul", "Pow")
    if node is None or node.input[0] != z:
        return False
    return node.input[1] == z if node.op_type == "Mul" else edit.scalar(node.input[1]) == 2


def _uncentred(edit: Edit, name: str) -> str | None:
    """If the value `name` is x - mean(x) over the last axis, the name of x; else None."""
    node = edit.producer(name, "Sub")
    return node.input[0] if node is not None and _mean_of_last(edit, node.input[1]) == node.input[0] else None


def _is_vector(edit: Edit, name: str, x: str) -> bool:
    """Whether a value is a vector with an element for each index of the last axis of x."""
    shape, sizes = edit.values.shape(name), edit.values.shape(x)
    return bool(sizes) and shape is not None and len(shape) == 1 and shape[0] is not None and shape[0] == sizes[-1]
