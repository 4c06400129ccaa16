"""Add noise to a model, as large as rounding errors, to find out how much of an output depends on rounding.

Every runtime rounds sums in its own way. A QuantizeLinear may turn such a rounding error into another level, and in
Elu, e^x - 1, it is large relative to a small result. So noise is added before these operators. An output that changes
with the noise cannot be expected to be equal in all runtimes.
"""

from collections.abc import Iterator, Mapping

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, helper

from triune.graph.by_values import RANDOM
from triune.graph.names import Names
from triune.graph.values import attributes_of, subgraphs_of

_QUANTIZED = frozenset(
    ["QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat"]
)
"""Operators that quantize their first operand, perhaps by a scale that is computed from it."""

_EXACT = frozenset(
    [
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat", "Expand"),
        *("Tile", "Pad", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Constant", "Where"),
        *("Relu", "Clip", "Max", "Min", "Neg", "Abs", "MaxPool", "GlobalMaxPool", "Floor", "Ceil", "Round", "Sign"),
        *("QuantizeLinear", "DequantizeLinear"),
    ]
)
"""Operators that round nothing: for equal operands all runtimes compute equal results."""

_NEAR_ZERO: Mapping[str, float] = {
    **dict.fromkeys(["Elu", "Selu", "Celu", "Gelu", "FastGelu", "BiasGelu", "QuickGelu"], 2.0**-22),
    **dict.fromkeys(["Mish", "Softplus", "LogSoftmax"], 2.0**-22),
    "Sigmoid": 2.0**-26,
}
"""The absolute errors of ONNX Runtime's kernels for e^x - 1, 1 + tanh(x), log(1 + x), and Sigmoid, which is 0 at -18
there.
"""


def has_steps(model: ModelProto) -> bool:
    """Whether the model has an operator that quantizes floats."""
    return any(node.op_type in _QUANTIZED for node in _nodes(model.graph))


def is_random(model: ModelProto) -> bool:
    """Whether the model or one of its functions may draw random numbers."""
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in _nodes(function))]
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
    if not any(node.op_type in _QUANTIZED or node.op_type in _NEAR_ZERO for node in _nodes(model.graph)):
        return None
    noisy = ModelProto()
    noisy.CopyFrom(model)
    names = Names(model.graph)
    names.value("noise")  # The names are collected before the copy is changed.
    _Noise(names, step, is_exact=is_exact).put_into(noisy.graph, set())
    return noisy


class _Noise:
    def __init__(self, names: Names, step: float, *, is_exact: bool) -> None:
        self._names = names
        self._step = step
        self._is_exact = is_exact
        self._count = 0

    def put_into(self, graph: GraphProto, outer: set[str]) -> None:
        """Args:
        graph: changed.
        outer: the names of the values in the graphs around it to which only operators that round nothing lead.
        """
        exact = outer | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        nodes: list[NodeProto] = []
        for node in graph.node:
            for inner in subgraphs_of(node):
                self.put_into(inner, exact)
            if node.op_type in _QUANTIZED and not (self._is_exact and node.input[0] in exact):
                added, node.input[0] = self._moved(node.input[0])
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
                nodes += [random, helper.make_node("Add", [node.output[0], noise], [name])]
        del graph.node[:]
        graph.node.extend(nodes)

    def _moved(self, name: str) -> tuple[list[NodeProto], str]:
        """Build nodes that add noise to a value, relative to its largest element, since smaller ones may be sums whose
        terms cancel.
        """
        random, noise = self._random(name, self._step)
        size, largest, error, moved = (
            self._names.value(f"{name}/{part}") for part in ("size", "largest", "error", "moved")
        )
        return [
            random,
            helper.make_node("Abs", [name], [size]),
            helper.make_node("ReduceMax", [size], [largest], keepdims=0),
            helper.make_node("Mul", [noise, largest], [error]),
            helper.make_node("Add", [name, error], [moved]),
        ], moved

    def _random(self, name: str, size: float) -> tuple[NodeProto, str]:
        self._count += 1
        noise = self._names.value(f"{name}/noise")
        seed = float(self._count)
        return helper.make_node("RandomUniformLike", [name], [noise], low=-size, high=size, seed=seed), noise


def _nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs_of(node):
            yield from _nodes(inner)
