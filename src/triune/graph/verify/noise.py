"""Add noise of the size of rounding errors to a model, to find out how much an output depends on rounding.

Every runtime rounds sums in its own way. A QuantizeLinear may turn such a rounding error into another level, and in
Elu, e^x - 1, it is large relative to a small result; Softmax turns a rounding error of large scores, 2^-24 of their
size, into a relative error of the same absolute size in its results. So noise is added before these operators. An
output that changes with the noise cannot be expected to be equal in all runtimes.
"""

from collections.abc import Mapping
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.graph.by_values import RANDOM
from triune.graph.names import Names
from triune.graph.values import attributes_of, nodes_of_model, nodes_within, subgraphs_of

_QUANTIZED = frozenset(
    ["QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat"]
)
"""Operators that quantize their first operand, perhaps by a scale that is computed from it."""

_EXPONENTIAL = frozenset(["Softmax", "Exp", "Attention", "MultiHeadAttention", "GroupQueryAttention"])
"""Operators that compute exponentials of their first operand, or of products with it."""

PHASE: Final = "triune/noise/phase"
"""The name of the input, FP32 [], that is added to models of new operator sets. The noise of a run follows from its
value.
"""

_FIRST_CAST_LIKE = 15
"""The first operator set with CastLike, which noise of masked scores needs."""

_FIRST_WITHOUT_RANDOM = 22
"""The first operator set whose random operators ONNX Runtime lacks: there the noise is a sine of the elements."""

_OFTEN = 2.0**22
"""The noise of an element is the sine of an angle. This is the angle, in radians, for the largest element: so large
that elements that differ by a rounding error have different sines.
"""

_LEAST = 1e-30

_ROUNDINGS: Final = 2.0**-21
"""The size of the noise on the operand of an exponential, as a fraction of the operand's largest absolute value that is
not masked. It stands for the rounding errors of a sum of several terms.
"""

_MASK: Final = -9000.0
"""Scores below this are masked: exporters add -10,000 or less."""

_EXACT = frozenset(
    [
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Expand"),
        *("Tile", "Pad", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Constant", "Where"),
        *("Relu", "Clip", "Max", "Min", "Neg", "Abs", "MaxPool", "GlobalMaxPool", "Floor", "Ceil", "Round", "Sign"),
        *("QuantizeLinear", "DequantizeLinear"),
    ]
)
"""Operators that do not round: for equal operands all runtimes compute equal results."""

_NEAR_ZERO: Mapping[str, float] = {
    **dict.fromkeys(["Elu", "Selu", "Celu", "Gelu", "FastGelu", "BiasGelu", "QuickGelu"], 2.0**-22),
    **dict.fromkeys(["Mish", "Softplus", "LogSoftmax"], 2.0**-22),
    "Sigmoid": 2.0**-26,
}
"""The absolute errors near 0 of ONNX Runtime's kernels that compute e^x - 1, 1 + tanh(x) or log(1 + x), and of its
Sigmoid, which is 0 from x = -18 down.
"""


def has_steps(model: ModelProto) -> bool:
    """Whether the model has an operator that quantizes floats, so that outputs change in steps."""
    return any(node.op_type in _QUANTIZED for node in nodes_within(model.graph.node))


def is_random(model: ModelProto) -> bool:
    """Whether the model or one of its functions may draw random numbers."""
    nodes = list(nodes_of_model(model))
    return any(node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2) for node in nodes)


def with_noise(model: ModelProto, step: float, *, is_exact: bool) -> ModelProto | None:
    """Make a copy of a model with random noise, so that its outputs differ at each run; None if it has no operator that
    needs noise.

    Args:
        model: a model of any operator set. Its weights are not read.
        step: the size of the noise on a value that is quantized, relative to its largest element.
        is_exact: whether a quantized value gets no noise if only operators that round nothing lead to it from the
            inputs, since its level is then certain.
    """
    version = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    exponential = _EXPONENTIAL if version >= _FIRST_CAST_LIKE else frozenset[str]()
    if not any(node.op_type in _QUANTIZED | exponential | _NEAR_ZERO.keys() for node in nodes_within(model.graph.node)):
        return None
    noisy = ModelProto()
    noisy.CopyFrom(model)
    has_random = version < _FIRST_WITHOUT_RANDOM
    if not has_random:
        noisy.graph.input.append(helper.make_tensor_value_info(PHASE, TensorProto.FLOAT, []))
    names = Names(model.graph)
    # The first call of `value` collects the model's names, which must be done before the copy is changed.
    names.value("noise")
    _Noise(names, step, exponential, is_exact=is_exact, has_random=has_random).put_into(noisy.graph, set())
    return noisy


class _Noise:
    def __init__(
        self, names: Names, step: float, exponential: frozenset[str], *, is_exact: bool, has_random: bool
    ) -> None:
        self._names = names
        self._step = step
        self._exponential = exponential
        self._is_exact = is_exact
        self._has_random = has_random
        self._count = 0

    def put_into(self, graph: GraphProto, outer: set[str]) -> None:
        """Add noise to a graph and its subgraphs.

        Args:
            graph: changed.
            outer: values of the graphs around it, by name, that are computed from the inputs by operators without
                rounding.
        """
        exact = outer | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        nodes: list[NodeProto] = []
        for node in graph.node:
            for inner in subgraphs_of(node):
                self.put_into(inner, exact)
            if node.op_type in _QUANTIZED and not (self._is_exact and node.input[0] in exact):
                added, node.input[0] = self._moved(node.input[0], self._step, has_masks=False)
                nodes += added
            if node.op_type in self._exponential and node.input[0] not in exact:
                added, node.input[0] = self._moved(node.input[0], _ROUNDINGS, has_masks=True)
                nodes += added
            if node.op_type == "QuantizeLinear" or (
                node.op_type in _EXACT and exact.issuperset(filter(None, node.input))
            ):
                exact.update(node.output)
            nodes.append(node)
            if node.op_type in _NEAR_ZERO:
                attributes = attributes_of(node)
                factor = abs(attributes.get("alpha", 1.0) * attributes.get("gamma", 1.0))
                name, node.output[0] = node.output[0], self._names.value(f"{node.output[0]}/exact")
                random, noise = self._random(node.output[0], _NEAR_ZERO[node.op_type] * max(1.0, factor))
                nodes += [*random, helper.make_node("Add", [node.output[0], noise], [name])]
        del graph.node[:]
        graph.node.extend(nodes)

    def _moved(self, name: str, step: float, *, has_masks: bool) -> tuple[list[NodeProto], str]:
        """Build nodes that add noise to a value. The noise of every element may be up to `step` times the value's
        largest absolute element, since even a small element may be a sum of large terms that cancel. If the value
        `has_masks`, masked scores (-10,000, -3.4e38 or infinite) do not count as the largest element.
        """
        sizing, largest = self._largest(name, has_masks=has_masks)
        random, noise = self._random(name, step, largest)
        error, moved = (self._names.value(f"{name}/{part}") for part in ("error", "moved"))
        return [
            *sizing,
            *random,
            helper.make_node("Mul", [noise, largest], [error]),
            helper.make_node("Add", [name, error], [moved]),
        ], moved

    def _largest(self, name: str, *, has_masks: bool) -> tuple[list[NodeProto], str]:
        """Build nodes that compute the largest absolute value of a tensor, or of scores that are not masked."""
        parts = ("size", "largest", "mask", "like", "is_score", "none", "zero", "counted")
        of = {part: self._names.value(f"{name}/{part}") for part in parts}
        without = [
            helper.make_node("Constant", [], [of["mask"]], value_float=_MASK),
            helper.make_node("CastLike", [of["mask"], name], [of["like"]]),
            helper.make_node("Greater", [name, of["like"]], [of["is_score"]]),
            helper.make_node("Constant", [], [of["none"]], value_float=0.0),
            helper.make_node("CastLike", [of["none"], name], [of["zero"]]),
            helper.make_node("Where", [of["is_score"], of["size"], of["zero"]], [of["counted"]]),
        ]
        counted = of["counted" if has_masks else "size"]
        return [
            helper.make_node("Abs", [name], [of["size"]]),
            *(without if has_masks else []),
            helper.make_node("ReduceMax", [counted], [of["largest"]], keepdims=0),
        ], of["largest"]

    def _random(self, name: str, size: float, largest: str = "") -> tuple[list[NodeProto], str]:
        """Build nodes that make noise up to `size`, of the type and shape of a value.

        `largest` is the name of the value's largest absolute element, if nodes compute it already; else "".
        """
        self._count += 1
        noise = self._names.value(f"{name}/noise")
        if self._has_random:
            seed = float(self._count)
            return [helper.make_node("RandomUniformLike", [name], [noise], low=-size, high=size, seed=seed)], noise
        sizing: list[NodeProto] = []
        if not largest:
            sizing, largest = self._largest(name, has_masks=False)
        numbers = {
            "up to": size,
            "often": _OFTEN,
            "least": _LEAST,
            "own": 2.39 * self._count,
            "one": 1.0,
            "minus": -1.0,
        }
        parts = ("wide", "most", "divisor", "share", "low", "within", "multiple", "begun", "angle", "sine", "product")
        of = {part: self._names.value(f"{name}/{part}") for part in (*numbers, *parts)}
        return [
            *sizing,
            *(helper.make_node("Constant", [], [of[part]], value_float=each) for part, each in numbers.items()),
            helper.make_node("Cast", [name], [of["wide"]], to=TensorProto.FLOAT),
            helper.make_node("Cast", [largest], [of["most"]], to=TensorProto.FLOAT),
            helper.make_node("Max", [of["most"], of["least"]], [of["divisor"]]),
            helper.make_node("Div", [of["wide"], of["divisor"]], [of["share"]]),
            helper.make_node("Max", [of["share"], of["minus"]], [of["low"]]),
            helper.make_node("Min", [of["low"], of["one"]], [of["within"]]),
            helper.make_node("Mul", [of["within"], of["often"]], [of["multiple"]]),
            helper.make_node("Add", [of["multiple"], PHASE], [of["begun"]]),
            helper.make_node("Add", [of["begun"], of["own"]], [of["angle"]]),
            helper.make_node("Sin", [of["angle"]], [of["sine"]]),
            helper.make_node("Mul", [of["sine"], of["up to"]], [of["product"]]),
            helper.make_node("CastLike", [of["product"], name], [noise]),
        ], noise
