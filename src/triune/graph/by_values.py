"""Whether the values of a graph's inputs decide the shapes of its outputs, or how long a run takes.

Requests whose values decide shapes cannot be batched, and a run whose time depends on values cannot be predicted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import onnx.defs
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

_LAST_READ: Final[Mapping[str, int]] = {"": 28, "ai.onnx.ml": 5}
"""The last operator sets that the tables below cover.

For a newer operator, or one of another domain, values are assumed to decide both shapes and time.
"""

_EVERY = range(1 << 16)

_SIZES: Final[Mapping[str, Sequence[int]]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "Compress": _EVERY,
    "ConstantOfShape": (0,),
    "DFT": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "ImageDecoder": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "NonMaxSuppression": _EVERY,
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": _EVERY,
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "StringSplit": (0,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Unique": (0,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""The inputs of an operator whose values decide the shapes of its outputs."""

_REDUCES = "Reduce"

_TIMES: Final[Mapping[str, Sequence[int]]] = {
    "GRU": (4,),
    "LSTM": (4,),
    "MaxRoiPool": (1,),
    "RNN": (4,),
    # With a sampling ratio of 0, the default, the number of sampled points grows with the size of a region.
    "RoiAlign": (1,),
}
"""The inputs whose values decide how long the operator takes, but no shape."""

_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
"""Loops: their time is taken to depend on values, whatever their inputs."""

_NUM_DECIDING: Final[Mapping[str, int]] = {"If": 1, "Loop": 2}
"""The number of first inputs that decide which branch runs, or how often."""

_OF_SHAPES = frozenset({"Shape", "Size", "SequenceLength", "OptionalHasElement"})
"""Operators whose results depend on the shapes of their inputs, not on the values."""

_LIKE_THE_FIRST = frozenset({"Scatter", "ScatterElements", "ScatterND", "TensorScatter"})
"""Operators whose result has the shape of their first input, whatever is written into it."""

RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that draw random numbers; Dropout does where it trains."""


@dataclass(frozen=True, slots=True)
class ByValues:
    """What depends on the values of a model's inputs, not only on their shapes.

    Attributes:
        time: the node that makes the time of a run depend on them, such as "Loop 'count'"; empty if there is none.
        shapes: the outputs of the graph whose shapes depend on them.
    """

    time: str
    shapes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Known:
    """Whether the elements of a value depend on the values of the inputs, and whether its shape does."""

    varies: bool = False
    is_sized: bool = False


_FIXED, _GIVEN = _Known(), _Known(varies=True)
_Scope: TypeAlias = dict[str, _Known]
_Key: TypeAlias = tuple[str, str, str]


def by_values(model: ModelProto) -> ByValues:
    """Find what depends on the values of a model's inputs, by following them through its graph.

    The outputs of an unknown operator count as dependent on the values of its inputs.

    An initializer that is also listed as an input counts as an input.
    """
    walk = _Walk({(each.domain, each.name, each.overload): each for each in model.functions})
    scope: _Scope = {}
    outputs = walk.graph(model.graph, scope, [_GIVEN] * len(model.graph.input))
    names = (value.name for value in model.graph.output)
    return ByValues(walk.time, frozenset(name for name, each in zip(names, outputs, strict=True) if each.is_sized))


@dataclass(slots=True)
class _Walk:
    functions: Mapping[_Key, FunctionProto]
    time: str = ""
    _calls: dict[tuple[_Key, tuple[_Known, ...]], list[_Known]] = field(
        default_factory=dict[tuple[_Key, tuple[_Known, ...]], list[_Known]]
    )

    def graph(self, graph: GraphProto, scope: _Scope, inputs: Iterable[_Known]) -> list[_Known]:
        """What is known of a graph's outputs.

        `scope` holds what is known of each value; those of this graph are added to it.
        """
        scope.update({tensor.name: _FIXED for tensor in graph.initializer})
        scope.update({tensor.values.name: _FIXED for tensor in graph.sparse_initializer})
        scope.update({value.name: known for value, known in zip(graph.input, inputs, strict=False)})
        return self._nodes(graph.node, scope, [value.name for value in graph.output])

    def _nodes(self, nodes: Iterable[NodeProto], scope: _Scope, outputs: Sequence[str]) -> list[_Known]:
        for node in nodes:
            scope.update(zip(node.output, self._node(node, scope), strict=False))
        return [scope.get(name, _FIXED) for name in outputs]

    def _node(self, node: NodeProto, scope: _Scope) -> list[_Known]:
        inputs = [scope.get(name, _FIXED) for name in node.input]
        key = (node.domain, node.op_type, node.overload)
        if key in self.functions:
            return self._call(key, inputs)
        varies, is_sized = any(each.varies for each in inputs), any(each.is_sized for each in inputs)
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, _LAST_READ.get(domain, 0), domain):
            self._decides(node)
            return [_Known(varies=True, is_sized=is_sized)] * len(node.output)
        if domain:
            if is_sized:
                self._decides(node)
            return [_Known(varies, is_sized)] * len(node.output)
        bodies = [each.g for each in node.attribute if each.HasField("g")]
        if bodies:
            return self._bodies(node, bodies, scope, inputs)
        positions = _SIZES.get(node.op_type, (1,) if node.op_type.startswith(_REDUCES) else ())
        makes_sizes = any(each.varies for position, each in enumerate(inputs) if position in positions)
        takes = any(each.varies for position, each in enumerate(inputs) if position in _TIMES.get(node.op_type, ()))
        if is_sized or makes_sizes or takes:
            self._decides(node)
        if node.op_type in _OF_SHAPES:
            return [_Known(varies=is_sized)] * len(node.output)
        if node.op_type in _LIKE_THE_FIRST:
            is_sized = inputs[0].is_sized
        return [_Known(varies or node.op_type in RANDOM, is_sized or makes_sizes)] * len(node.output)

    def _bodies(
        self, node: NodeProto, bodies: Sequence[GraphProto], scope: _Scope, inputs: Sequence[_Known]
    ) -> list[_Known]:
        """What is known of the outputs of an If, either branch of which may run, or of a loop, each iteration of which
        may differ.
        """
        is_sized = any(each.is_sized for each in inputs)
        # The first two inputs of a Loop's body are the iteration number and the condition; the body decides the latter.
        fixed = [_FIXED, _FIXED] if node.op_type == "Loop" else []
        given = [*fixed, *[_Known(varies=True, is_sized=is_sized)] * max(len(body.input) for body in bodies)]
        results = [self.graph(body, dict(scope), given) for body in bodies]
        is_decided = any(each.varies for each in inputs[: _NUM_DECIDING.get(node.op_type, 0)])
        if node.op_type == "Loop":
            conditions = [result.pop(0) for result in results if result]
            is_decided |= any(each.varies for each in conditions)
        is_loop = node.op_type in _LOOPS
        if is_loop or is_decided or is_sized:
            self._decides(node)
        # The outputs of an If have the shapes of its branches' outputs; those of a loop may grow with each iteration.
        found = [[each[position] for each in results if position < len(each)] for position in range(len(node.output))]
        return [
            _Known(
                varies=is_loop or is_decided or any(each.varies for each in position),
                is_sized=is_decided or any(each.is_sized for each in position),
            )
            for position in found
        ]

    def _call(self, key: _Key, inputs: Sequence[_Known]) -> list[_Known]:
        """What is known of the outputs of a call of a function.

        A function is followed once for each kind of inputs, since nested calls would otherwise take exponential time.
        """
        call = (key, tuple(inputs))
        if call not in self._calls:
            function = self.functions[key]
            # A function that calls itself is invalid: the runtime reports it.
            self._calls[call] = [_Known(varies=True, is_sized=True)] * len(function.output)
            scope = dict(zip(function.input, inputs, strict=False))
            self._calls[call] = self._nodes(function.node, scope, function.output)
        return self._calls[call]

    def _decides(self, node: NodeProto) -> None:
        if not self.time:
            self.time = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
