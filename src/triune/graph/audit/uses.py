"""Find inputs of a model that it uses as attention masks, divisors or lengths of sequences, for which only some values
are valid.

Inputs are followed through operators that do not change their elements.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from triune.graph.conversion.shapes import inputs_of
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.graph.weight_files import array_of

SAME = frozenset(["Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand"])
"""Operators that copy elements of the first operand."""

_COMBINES_MASKS = frozenset(["Mul", "Min", "Max", "Where"])
"""Operators whose result is a mask if the operands are masks."""

_LARGE = 1e4
"""A factor of at least this turns 1 - mask into an attention mask: exporters use 10,000 and more."""

_HUGE = 1e30

_MOST_ELEMENTS = 1 << 20
"""Constants of more elements are not read: the factor of a mask, such as -10,000, has few elements."""

_STEPS: Mapping[str, int] = {"ReverseSequence": 1, "LSTM": 4, "GRU": 4, "RNN": 4}
"""Operators with an input for the lengths of sequences, and its position."""

_DIVISORS: Mapping[str, int] = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6}
"""Operators that divide floats by a scale before they round them to integers, and the position of the scale."""


@dataclass(frozen=True, slots=True)
class Uses:
    """What an input is used for.

    Attributes:
        kept: for an attention mask, the value that masks nothing: 1 in `(1 - mask) * -3.4e38`. Values other than 0 and
            1 would overflow. None if the input is not a mask.
        is_divisor: whether integers are divided by the input, or floats that become integers, so that it must not be 0.
        is_length: whether the input is a number of steps of a sequence.
    """

    kept: int | None = None
    is_divisor: bool = False
    is_length: bool = False


@dataclass(frozen=True, slots=True)
class _Source:
    """An input from which a value is computed.

    Attributes:
        name: the name of the input.
        is_integer: whether all values from the input to this one are integers.
        is_inverted: whether 1 was added or subtracted on the way, as in 1 - mask.
    """

    name: str
    is_integer: bool
    is_inverted: bool = False


def uses_of(graph: GraphProto) -> dict[str, Uses]:
    """Maps each input of a graph that is used as a mask, a divisor or a length to its uses."""
    found = _UseSearch()
    inputs = {value.name: value.type.tensor_type.elem_type for value in inputs_of(graph)}
    found.follow(graph, Values(graph), {name: {_Source(name, _is_integer(each))} for name, each in inputs.items()})
    return found.uses


class _UseSearch:
    def __init__(self) -> None:
        self.uses: dict[str, Uses] = {}

    def follow(self, graph: GraphProto, values: Values, sources: dict[str, set[_Source]]) -> None:
        for node in graph.node:
            operands = [sources.get(name, set[_Source]()) for name in node.input]
            if any(operands):
                self._note(node, operands, values)
                sources.update(dict.fromkeys(node.output, _after(node, operands, values)))
            for inner in subgraphs_of(node):
                self.follow(inner, Values(inner, values), dict(sources))

    def _note(self, node: NodeProto, operands: list[set[_Source]], values: Values) -> None:
        if node.op_type in ("Div", "Mod"):
            self._use([each for each in operands[1] if each.is_integer], is_divisor=True)
        position = _DIVISORS.get(node.op_type, len(operands))
        if position < len(operands):
            self._use(operands[position], is_divisor=True)
        position = _STEPS.get(node.op_type, len(operands))
        if position < len(operands):
            self._use(operands[position], is_length=True)
        if node.op_type in ("Mul", "Div"):
            for name, each in zip(node.input, reversed(operands), strict=True):
                size = _size(values, name)
                self._use([one for one in each if one.is_inverted and size >= _LARGE], kept=1)
                self._use([one for one in each if not one.is_inverted and size >= _HUGE], kept=0)

    def _use(self, inputs: Iterable[_Source], **use: int) -> None:
        for each in inputs:
            self.uses[each.name] = replace(self.uses.get(each.name, Uses()), **use)


def _after(node: NodeProto, operands: list[set[_Source]], values: Values) -> set[_Source]:
    """The model inputs from which a node's results are computed, given the inputs of each operand."""
    if node.op_type == "Cast":
        is_integer = _is_integer(int(attributes_of(node)["to"]))
        return {replace(each, is_integer=each.is_integer and is_integer) for each in operands[0]}
    if node.op_type in SAME:
        return operands[0]
    if node.op_type in _COMBINES_MASKS:
        return set[_Source]().union(*operands)
    if node.op_type in ("Add", "Sub") and any(_size(values, name) == 1 for name in node.input):
        return {replace(each, is_inverted=True) for each in set[_Source]().union(*operands)}
    return set()


def _size(values: Values, name: str) -> float:
    """The largest absolute value of a constant; 0 if it is not constant, has strings, or is too large to read."""
    tensor = values.tensor(name)
    if tensor is None or tensor.data_type == TensorProto.STRING or np.prod(tensor.dims) > _MOST_ELEMENTS:
        return 0.0
    return float(np.max(np.abs(array_of(tensor).astype(np.float64)), initial=0.0))


def _is_integer(elem_type: int) -> bool:
    return elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING) and (
        np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).kind in "iu"
    )
