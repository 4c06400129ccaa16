"""Find out whether the shapes of a model's outputs, or the time of a run, depend on the values of its inputs.

If shapes depend on values (as with NonZero), requests cannot be batched. If the time does (as with Loop), it cannot be
predicted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import onnx.defs
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

_LAST_READ: Final[Mapping[str, int]] = {"": 28, "ai.onnx.ml": 5}
"""The newest operator sets that the tables below cover.

For newer operators, and those of other domains, the time and the elements of the outputs are assumed to depend on
values.
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
"""For each operator, the positions of the inputs whose values determine the shapes of its outputs."""

_REDUCES = "Reduce"

_TIMES: Final[Mapping[str, Sequence[int]]] = {
    "GRU": (4,),
    "LSTM": (4,),
    "MaxRoiPool": (1,),
    "RNN": (4,),
    # With a sampling ratio of 0, the default, the number of sampled points grows with the size of a region.
    "RoiAlign": (1,),
}
"""For each operator, the positions of the inputs whose values affect its time, but not the shapes of its outputs."""

_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
"""Loops, whose time is assumed to depend on values in any case."""

_NUM_DECIDING: Final[Mapping[str, int]] = {"If": 1, "Loop": 2}
"""How many of the first inputs determine which branch runs, or how many iterations."""

_OF_SHAPES = frozenset({"Shape", "Size", "SequenceLength", "OptionalHasElement"})
"""Operators whose results depend on the shapes of the inputs, not on their values."""

_SHAPED_LIKE_FIRST = frozenset({"Scatter", "ScatterElements", "ScatterND", "TensorScatter"})
"""Operators whose result has the shape of the first input, whatever the other inputs are."""

RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that draw random numbers. Dropout does, too, in training mode."""


@dataclass(frozen=True, slots=True)
class ByValues:
    """The times and shapes of a model that depend on the values of its inputs, not only on their shapes.

    Attributes:
        time: a node whose time depends on values, such as "Loop 'count'"; "" if there is none.
        shapes: the names of the outputs whose shapes depend on values.
    """

    time: str
    shapes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Known:
    """How a value depends on the model's inputs.

    Attributes:
        varies: whether its elements depend on the values of the model's inputs.
        is_sized: whether its shape depends on them.
    """

    varies: bool = False
    is_sized: bool = False


_FIXED, _GIVEN = _Known(), _Known(varies=True)
_Scope: TypeAlias = dict[str, _Known]
_Key: TypeAlias = tuple[str, str, str]


def by_values(model: ModelProto) -> ByValues:
    """Find what depends on the values of a model's inputs, by following each value through the graph.

    The elements of an unknown operator's outputs are assumed to depend on values. An initializer that is also an input
    counts as an input.
    """
    walk = _Search({(each.domain, each.name, each.overload): each for each in model.functions})
    scope: _Scope = {}
    outputs = walk.graph(model.graph, scope, [_GIVEN] * len(model.graph.input))
    names = (value.name for value in model.graph.output)
    return ByValues(walk.time, frozenset(name for name, each in zip(names, outputs, strict=True) if each.is_sized))


@dataclass(slots=True)
class _Search:
    functions: Mapping[_Key, FunctionProto]
    time: str = ""
    _calls: dict[tuple[_Key, tuple[_Known, ...]], list[_Known]] = field(
        default_factory=dict[tuple[_Key, tuple[_Known, ...]], list[_Known]]
    )

    def graph(self, graph: GraphProto, scope: _Scope, inputs: Iterable[_Known]) -> list[_Known]:
        """Compute what is known of each output of a graph.

        `inputs` is what is known of each input of the graph, and `scope` is what is known of other values, by their
        names; the values of the graph are added to it.
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
            self._depends_on_values(node)
            return [_Known(varies=True, is_sized=is_sized)] * len(node.output)
        if domain:
            if is_sized:
                self._depends_on_values(node)
            return [_Known(varies, is_sized)] * len(node.output)
        bodies = [each.g for each in node.attribute if each.HasField("g")]
        if bodies:
            return self._bodies(node, bodies, scope, inputs)
        positions = _SIZES.get(node.op_type, (1,) if node.op_type.startswith(_REDUCES) else ())
        makes_sizes = any(each.varies for position, each in enumerate(inputs) if position in positions)
        takes_time = any(
            each.varies for position, each in enumerate(inputs) if position in _TIMES.get(node.op_type, ())
        )
        if is_sized or makes_sizes or takes_time:
            self._depends_on_values(node)
        if node.op_type in _OF_SHAPES:
            return [_Known(varies=is_sized)] * len(node.output)
        if node.op_type in _SHAPED_LIKE_FIRST:
            is_sized = inputs[0].is_sized
        return [_Known(varies or node.op_type in RANDOM, is_sized or makes_sizes)] * len(node.output)

    def _bodies(
        self, node: NodeProto, bodies: Sequence[GraphProto], scope: _Scope, inputs: Sequence[_Known]
    ) -> list[_Known]:
        """What is known of the outputs of an If, either of whose branches may run, or of a loop."""
        is_sized = any(each.is_sized for each in inputs)
        # Assume that the iteration number and the condition, the first two inputs of a Loop's body, do not vary with
        # the model's inputs. Whether the condition does is read below from the body's first output, which computes it.
        fixed = [_FIXED, _FIXED] if node.op_type == "Loop" else []
        given = [*fixed, *[_Known(varies=True, is_sized=is_sized)] * max(len(body.input) for body in bodies)]
        results = [self.graph(body, dict(scope), given) for body in bodies]
        depends = any(each.varies for each in inputs[: _NUM_DECIDING.get(node.op_type, 0)])
        if node.op_type == "Loop":
            conditions = [result.pop(0) for result in results if result]
            depends |= any(each.varies for each in conditions)
        is_loop = node.op_type in _LOOPS
        if is_loop or depends or is_sized:
            self._depends_on_values(node)
        # For each output position, the outputs of all bodies at that position.
        found = [[each[position] for each in results if position < len(each)] for position in range(len(node.output))]
        return [
            _Known(
                varies=is_loop or depends or any(each.varies for each in position),
                is_sized=depends or any(each.is_sized for each in position),
            )
            for position in found
        ]

    def _call(self, key: _Key, inputs: Sequence[_Known]) -> list[_Known]:
        """What is known of the outputs of a call of a function, given what is known of its inputs.

        This is computed once for all calls whose inputs are known equally well, since nested calls would otherwise take
        exponential time.
        """
        call = (key, tuple(inputs))
        if call not in self._calls:
            function = self.functions[key]
            # A function that calls itself is invalid, which the runtime reports; this entry ends the recursion.
            self._calls[call] = [_Known(varies=True, is_sized=True)] * len(function.output)
            scope = dict(zip(function.input, inputs, strict=False))
            self._calls[call] = self._nodes(function.node, scope, function.output)
        return self._calls[call]

    def _depends_on_values(self, node: NodeProto) -> None:
        if not self.time:
            self.time = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
