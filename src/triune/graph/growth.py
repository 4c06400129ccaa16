"""Find out whether a run of a model may take much heap memory outside of ONNX Runtime's arena, whose limit covers only
tensors.

The contents of strings, which a graph can copy many times, and the outputs that a Loop collects are on the heap. In the
arena a tensor of strings takes 32 bytes for each element, however long the strings are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

from triune.graph.values import constant_tensor

_MOST_TIMES = 16.0
"""If a node copies a request's strings more often than this, the memory counts as unbounded."""

_LONGEST_LABEL_BYTES = 256

_MOST_ITERATIONS = 1 << 16

_NOT_STRINGS: Final = frozenset(
    {
        "DictVectorizer",
        "Equal",
        "MurmurHash3",
        "OneHotEncoder",
        "OptionalHasElement",
        "RegexFullMatch",
        "SequenceLength",
        "Shape",
        "Size",
        "TfIdfVectorizer",
    }
)
"""Operators that read strings and return none."""

_KEEP: Final = frozenset(
    {
        "Cast",
        "CastLike",
        "Compress",
        "Concat",
        "Constant",
        "Flatten",
        "Identity",
        "Optional",
        "OptionalGetElement",
        "Reshape",
        "ReverseSequence",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceErase",
        "SequenceInsert",
        "Slice",
        "Split",
        "SplitToSequence",
        "Squeeze",
        "StringNormalizer",
        "Transpose",
        "Unique",
        "Unsqueeze",
    }
)
"""Operators whose results together have no more strings than their inputs."""

_LABELS: Final[Mapping[str, Sequence[str]]] = {
    "CategoryMapper": ("cats_strings",),
    "LabelEncoder": ("values_strings", "values_tensor"),
    "LinearClassifier": ("classlabels_strings",),
    "SVMClassifier": ("classlabels_strings",),
    "TreeEnsembleClassifier": ("classlabels_strings",),
}
"""Operators that return strings of the model, one for each element or row, and the attributes with these strings."""

_CHOOSE: Final = frozenset({"ArrayFeatureExtractor", "Gather", "GatherElements", "GatherND", "Where"})
"""Operators that select strings. If they select from constant strings, their results are strings of the model, like
those of `_LABELS`.
"""

_Times: TypeAlias = dict[str, float]
"""For each value that may be strings, by name: its largest size in bytes, as a multiple of all strings in the request
and the model.
"""

_Key: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Growth:
    """How much heap memory a run may take.

    Attributes:
        node: the node that makes it unbounded, such as "Tile 'y' multiplies strings"; "" if there is none.
        gives_labels: whether a node returns a short string, such as a class label, for each element of a tensor of
            numbers.
        copies: the bytes of strings in the results of all nodes together, as a multiple of the bytes of strings in the
            request and the model.
    """

    node: str
    gives_labels: bool
    copies: float


def growth_of(model: ModelProto) -> Growth:
    """Find the nodes that make the heap memory of a run grow: nodes whose outputs may hold several copies of an input
    string, such as Tile and Expand, and Loops that collect outputs.

    An unknown operator is assumed to copy strings.
    """
    walk = _Search({(each.domain, each.name, each.overload): each for each in model.functions})
    walk.graph(model.graph, {}, [0.0] * len(model.graph.input))
    return Growth(walk.node, walk.gives_labels, walk.copies)


@dataclass(slots=True)
class _Search:
    functions: Mapping[_Key, FunctionProto]
    node: str = ""
    gives_labels: bool = False
    copies: float = 1.0
    # `_numbers`: the values of constant integers, by name. `_labels`: the names of constants of short strings.
    _numbers: dict[str, int] = field(default_factory=dict[str, int])
    _labels: set[str] = field(default_factory=set[str])
    _calls: dict[tuple[_Key, tuple[float, ...]], list[float]] = field(
        default_factory=dict[tuple[_Key, tuple[float, ...]], list[float]]
    )

    def graph(
        self, graph: GraphProto, scope: _Times, inputs: Sequence[float], *, is_iteration: bool = False
    ) -> list[float]:
        """Follow strings through a graph. Returns the size of the strings in each output, as a multiple (see `_Times`).

        The sizes of the graph's values are added to `scope`. `is_iteration` is whether a loop runs the graph.
        """
        for tensor in graph.initializer:
            self._constant(scope, tensor.name, tensor)
        for value, times in zip(graph.input, inputs, strict=False):
            self._numbers.pop(value.name, None)
            self._labels.discard(value.name)
            _name(scope, value.name, times or float(_is_of_strings(value.type)))
        return self._nodes(graph.node, scope, [value.name for value in graph.output], is_iteration=is_iteration)

    def _nodes(
        self, nodes: Iterable[NodeProto], scope: _Times, outputs: Sequence[str], *, is_iteration: bool
    ) -> list[float]:
        for node in nodes:
            for name, times in zip(node.output, self._node(node, scope, is_iteration=is_iteration), strict=False):
                _name(scope, name, times)
            if node.op_type == "Constant" and (tensor := constant_tensor(node)) is not None:
                self._constant(scope, node.output[0], tensor)
        return [scope.get(name, 0.0) for name in outputs]

    def _constant(self, scope: _Times, name: str, tensor: TensorProto) -> None:
        _name(scope, name, float(tensor.data_type == TensorProto.STRING))
        if (
            tensor.data_type == TensorProto.STRING
            and max(map(len, tensor.string_data), default=0) <= _LONGEST_LABEL_BYTES
        ):
            self._labels.add(name)
        is_number = tensor.data_type == TensorProto.INT64 and np.prod(tensor.dims) == 1
        if is_number and tensor.data_location != TensorProto.EXTERNAL:
            self._numbers[name] = int(numpy_helper.to_array(tensor).item())

    def _node(self, node: NodeProto, scope: _Times, *, is_iteration: bool) -> list[float]:
        """The size of the strings in each output of a node, as a multiple (see `_Times`)."""
        given = [scope.get(name, 0.0) for name in node.input]
        key = (node.domain, node.op_type, node.overload)
        if key in self.functions:
            results = self._call(key, given, is_iteration=is_iteration)
            self.copies += sum(results)
            return results
        if is_iteration and node.op_type == "SequenceInsert":
            self._grows(node, "lengthens a list with each turn")
        bodies = [each.g for each in node.attribute if each.HasField("g")]
        if bodies:
            return self._bodies(node, bodies, scope, given, is_iteration=is_iteration)
        own = self._own(node, given)
        times = sum(given) + own
        if not times or node.op_type in _NOT_STRINGS or _is_of_numbers(node, own):
            return [0.0] * len(node.output)
        if node.op_type in _CHOOSE and all(name in self._labels for name in node.input if name in scope):
            self.gives_labels = True
            return [1.0]
        self.copies += times
        if times > _MOST_TIMES or (node.op_type not in _KEEP and node.op_type not in _LABELS):
            self._grows(node, "multiplies strings")
        is_first_alone = node.op_type in _LABELS or node.op_type in ("StringSplit", "Unique")
        return [times, *[0.0 if is_first_alone else times] * (len(node.output) - 1)]

    def _own(self, node: NodeProto, given: Sequence[float]) -> float:
        """The size of the strings that a node creates itself (labels, numbers as text, a Constant's strings), as a
        multiple (see `_Times`).
        """
        if node.op_type == "Constant":
            return float(any(each.name.startswith("value_string") for each in node.attribute))
        if node.op_type == "CastLike":
            self.gives_labels |= len(given) > 1 and given[1] > 0
            return 0.0
        if node.op_type == "Cast":
            is_text = any(each.name == "to" and each.i == TensorProto.STRING for each in node.attribute)
            self.gives_labels |= is_text
            return float(is_text)
        names = (*_LABELS.get(node.op_type, ()), "default_string")
        if len(names) == 1:
            return 0.0
        labels = [text for each in node.attribute if each.name in names for text in _texts(each)]
        if max(map(len, labels), default=0) > _LONGEST_LABEL_BYTES:
            self._grows(node, "multiplies strings")
        has_labels = any(_texts(each) for each in node.attribute if each.name in names[:-1])
        self.gives_labels |= has_labels
        return float(has_labels)

    def _bodies(
        self,
        node: NodeProto,
        bodies: Sequence[GraphProto],
        scope: _Times,
        given: Sequence[float],
        *,
        is_iteration: bool,
    ) -> list[float]:
        """The size of the strings in each output of an If (of its larger branch) or of a loop, as a multiple (see
        `_Times`). If a loop has strings in its outputs, the memory counts as unbounded: each iteration may double them.
        """
        is_loop = node.op_type != "If"
        # The first two inputs of a Loop are its trip count and condition. The first two inputs of its body are the
        # iteration number and condition.
        results = [self.graph(body, dict(scope), given, is_iteration=is_iteration or is_loop) for body in bodies]
        if node.op_type == "Loop":
            results = [each[1:] for each in results]
            num_iterations = (
                self._numbers.get(node.input[0], _MOST_ITERATIONS + 1) if node.input else _MOST_ITERATIONS + 1
            )
            if len(node.output) > len(node.input) - 2 and num_iterations > _MOST_ITERATIONS:
                self._grows(node, "gives as many values as it has turns")
        outputs = [
            max((each[position] for each in results if position < len(each)), default=0.0)
            for position in range(len(node.output))
        ]
        if is_loop and any(outputs):
            self._grows(node, "multiplies strings")
        return outputs

    def _call(self, key: _Key, given: Sequence[float], *, is_iteration: bool) -> list[float]:
        """The size of the strings in each output of a call of a function, as a multiple (see `_Times`). Calls of one
        function whose inputs have equal sizes share one search.
        """
        call = (key, (float(is_iteration), *given))
        if call not in self._calls:
            function = self.functions[key]
            # A function that calls itself is invalid, which the runtime reports; this entry ends the recursion.
            self._calls[call] = [0.0] * len(function.output)
            outside, self._numbers, self._labels = (self._numbers, self._labels), {}, set()
            scope = {name: times for name, times in zip(function.input, given, strict=False) if times}
            self._calls[call] = self._nodes(function.node, scope, function.output, is_iteration=is_iteration)
            self._numbers, self._labels = outside
        return self._calls[call]

    def _grows(self, node: NodeProto, how: str) -> None:
        if not self.node:
            self.node = f"{node.op_type} '{node.name or next(filter(None, node.output), '')}' {how}"


def _name(scope: _Times, name: str, times: float) -> None:
    scope.pop(name, None)
    if times:
        scope[name] = times


def _is_of_numbers(node: NodeProto, own: float) -> bool:
    """Whether an operator that can return strings or numbers returns numbers. `own` is the size of the strings that the
    node creates by its attributes (`_Search._own`).
    """
    return not own and (node.op_type == "Cast" or node.op_type in _LABELS)


def _is_of_strings(kind: TypeProto) -> bool:
    """Whether a type is a tensor of strings, or a sequence or an optional of one."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            return kind.tensor_type.elem_type == TensorProto.STRING
        case "sequence_type":
            return _is_of_strings(kind.sequence_type.elem_type)
        case "optional_type":
            return _is_of_strings(kind.optional_type.elem_type)
        case _:
            return False


def _texts(attribute: AttributeProto) -> Sequence[bytes]:
    if attribute.t.data_type == TensorProto.STRING:
        return attribute.t.string_data
    return attribute.strings or ([attribute.s] if attribute.s else ())
