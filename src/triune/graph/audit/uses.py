"""Uses of a model's inputs for which only some values are valid: masks, divisors, lengths of sequences.

Inputs are followed through the operators that do not change their elements.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from triune.graph.conversion.shapes import inputs_of
from triune.graph.values import Values, attributes_of, subgraphs_of
from triune.graph.weight_files import array_of

SAME = frozenset(["Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand"])
"""Operators whose results are elements of their first operand."""

_JOINED = frozenset(["Mul", "Min", "Max", "Where"])
"""Operators whose result is a mask if their operands are masks."""

_LARGE = 1e4
"""The least magnitude of a number whose sum with a score masks it: exporters use 10,000 and more."""

_HUGE = 1e30

_MOST_LOOKED_AT = 1 << 20
"""The largest number of elements of a constant that can be the factor of a mask."""

_STEPS: Mapping[str, int] = {"ReverseSequence": 1, "LSTM": 4, "GRU": 4, "RNN": 4}
"""Operators that take lengths of sequences, and the position of that input."""


@dataclass(frozen=True, slots=True)
class Uses:
    """The uses of an input.

    Attributes:
        kept: for an attention mask, the value that masks nothing: 1 in `(1 - mask) * -3.4e38`, where values other than
        0 and 1 overflow. None if the input is not a mask.
        is_divisor: whether integers are divided by it, so that it must not be zero.
        is_length: whether it is the number of steps of a sequence.
    """

    kept: int | None = None
    is_divisor: bool = False
    is_length: bool = False


@dataclass(frozen=True, slots=True)
class _From:
    """An input that a value is computed from.

    Attributes:
        is_whole: whether all values from the input to this one are integers.
        is_turned: whether it was subtracted from a number, or a number was subtracted from it.
    """

    name: str
    is_whole: bool
    is_turned: bool = False


def uses_of(graph: GraphProto) -> dict[str, Uses]:
    """The uses of each input; inputs without uses are left out."""
    found = _Found()
    inputs = {value.name: value.type.tensor_type.elem_type for value in inputs_of(graph)}
    found.follow(graph, Values(graph), {name: {_From(name, _is_whole(each))} for name, each in inputs.items()})
    return found.uses


class _Found:
    def __init__(self) -> None:
        self.uses: dict[str, Uses] = {}

    def follow(self, graph: GraphProto, values: Values, sources: dict[str, set[_From]]) -> None:
        for node in graph.node:
            operands = [sources.get(name, set[_From]()) for name in node.input]
            if any(operands):
                self._note(node, operands, values)
                sources.update(dict.fromkeys(node.output, _after(node, operands, values)))
            for inner in subgraphs_of(node):
                self.follow(inner, Values(inner, values), dict(sources))

    def _note(self, node: NodeProto, operands: list[set[_From]], values: Values) -> None:
        if node.op_type in ("Div", "Mod"):
            self._use([each for each in operands[1] if each.is_whole], is_divisor=True)
        position = _STEPS.get(node.op_type, len(operands))
        if position < len(operands):
            self._use(operands[position], is_length=True)
        if node.op_type in ("Mul", "Div"):
            for name, each in zip(node.input, reversed(operands), strict=True):
                size = _size(values, name)
                self._use([one for one in each if one.is_turned and size >= _LARGE], kept=1)
                self._use([one for one in each if not one.is_turned and size >= _HUGE], kept=0)

    def _use(self, inputs: Iterable[_From], **use: int) -> None:
        for each in inputs:
            self.uses[each.name] = replace(self.uses.get(each.name, Uses()), **use)


def _after(node: NodeProto, operands: list[set[_From]], values: Values) -> set[_From]:
    """The operands whose elements a node's results are made of."""
    if node.op_type == "Cast":
        is_whole = _is_whole(int(attributes_of(node)["to"]))
        return {replace(each, is_whole=each.is_whole and is_whole) for each in operands[0]}
    if node.op_type in SAME:
        return operands[0]
    if node.op_type in _JOINED:
        return set[_From]().union(*operands)
    if node.op_type in ("Add", "Sub") and any(_size(values, name) == 1 for name in node.input):
        return {replace(each, is_turned=True) for each in set[_From]().union(*operands)}
    return set()


def _size(values: Values, name: str) -> float:
    """The largest absolute value of a constant; 0 for a value that is not constant."""
    tensor = values.tensor(name)
    if tensor is None or tensor.data_type == TensorProto.STRING or np.prod(tensor.dims) > _MOST_LOOKED_AT:
        return 0.0
    return float(np.max(np.abs(array_of(tensor).astype(np.float64)), initial=0.0))


def _is_whole(elem_type: int) -> bool:
    return elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING) and (
        np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).kind in "iu"
    )
