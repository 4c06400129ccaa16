"""Find the sides of gates (If, Where, Max, Min and Clip) that no sample took. How precise they are is not known."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.core.datatypes import Array
from triune.graph.passes.infer import Infer
from triune.graph.values import Values
from triune.graph.weights import without_weights

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)

_FIRST_WITH_EQUAL = 11
"""The first operator set whose Equal compares floats."""

_MOST = 64
"""The largest number of conditions whose values are recorded."""


@dataclass(frozen=True, slots=True)
class Untaken:
    """A side of a gate (an If, Where, Max, Min or Clip) that no sample took.

    Attributes:
        value: the name of the gate's first result.
        op_type: "If", "Where", "Max", "Min" or "Clip".
        side: True for the side that is taken if the condition is true; for Max, Min and Clip, for the first operand.
    """

    value: str
    op_type: str
    side: bool


class Gates:
    """Records which sides of the gates (If, Where, Max, Min and Clip) in a model's main graph were taken in its runs.

    Attributes:
        model: a copy of the model, with the conditions of the gates as further outputs; the model itself if it has no
            gates.
    """

    def __init__(self, model: ModelProto) -> None:
        """`model` is not changed. A condition that is an input or a constant of the model is watched only if an If
        reads it.
        """
        values = Values(model.graph)
        made = {name for node in model.graph.node for name in node.output}
        given = {value.name for value in model.graph.input}
        self._gates: list[tuple[str, str, str]] = []
        for node in model.graph.node:
            if node.op_type not in ("If", "Where") or node.domain not in ("", "ai.onnx"):
                continue
            is_known = values.tensor(node.input[0]) is not None
            computed = node.op_type == "If" or any(name in made for name in node.input[1:3])
            if not is_known and computed and node.input[0] in made | given and len(self._gates) < _MOST:
                self._gates.append((node.input[0], node.output[0], node.op_type))
        self._choices = _choices(model, values, made, _MOST - len(self._gates))
        self._seen: dict[str, set[bool]] = {condition: set() for condition, _, _ in self._gates}
        self._seen.update({choice.condition: set() for choice in self._choices})
        listed = {value.name for value in model.graph.output}
        self._given = given
        self._added = [name for name in self._seen if name not in listed | given]
        self.model = model
        if self._added:
            self.model = ModelProto()
            self.model.CopyFrom(model)
            self.model.graph.node.extend(node for choice in self._choices for node in choice.nodes())
            self.model.graph.output.extend(
                helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in self._added
            )

    def learn(self, inputs: Mapping[str, Array], results: Mapping[str, Array]) -> dict[str, Array]:
        """Record the values of the conditions in one run. Returns the results without the conditions."""
        for name, seen in self._seen.items():
            array = results.get(name, inputs.get(name))
            if array is not None:
                seen.update(bool(each) for each in np.unique(array))
        return {name: array for name, array in results.items() if name not in self._added}

    def untaken(self) -> Iterator[Untaken]:
        """The sides of gates (If, Where, Max, Min and Clip; see `Untaken`) that no run took."""
        for condition, value, op_type in self._gates:
            for side in (True, False):
                if side not in self._seen[condition]:
                    yield Untaken(value, op_type, side)
        for choice in self._choices:
            if True not in self._seen[choice.condition]:
                yield Untaken(choice.node.output[0], choice.node.op_type, not choice.place)


@dataclass(frozen=True, slots=True)
class _Choice:
    """An operand of a Max, Min or Clip, which perhaps contributes no element to the result.

    Attributes:
        node: the Max, Min or Clip.
        place: the position of the operand.
        condition: the name of a BOOL scalar: whether any element of the operand is in the result.
    """

    node: NodeProto
    place: int
    condition: str

    def nodes(self) -> Sequence[NodeProto]:
        """Build the nodes that compute `condition`, from the operand and the result of `node`."""
        equal, whole, most = (f"{self.condition}/{step}" for step in ("equal", "whole", "most"))
        return (
            helper.make_node("Equal", [self.node.output[0], self.node.input[self.place]], [equal]),
            helper.make_node("Cast", [equal], [whole], to=TensorProto.INT32),
            helper.make_node("ReduceMax", [whole], [most], keepdims=0),
            helper.make_node("Cast", [most], [self.condition], to=TensorProto.BOOL),
        )


def _choices(model: ModelProto, values: Values, made: Collection[str], most: int) -> list[_Choice]:
    """Float operands of Max, Min and Clip that nodes compute, at most `most`. `made` has the names of all results."""
    version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    found: list[_Choice] = []
    for node in model.graph.node if version >= _FIRST_WITH_EQUAL else ():
        if node.op_type not in ("Max", "Min", "Clip") or node.domain not in ("", "ai.onnx"):
            continue
        operands = node.input[:1] if node.op_type == "Clip" else node.input
        if len(operands) <= 2:
            found += [
                _Choice(node, place, f"{node.output[0]}/is_operand_{place}")
                for place, name in enumerate(operands)
                if name in made and values.tensor(name) is None
            ]
    if not found:
        return []
    inferred = Values(Infer()(without_weights(model)).graph)
    return [each for each in found if inferred.elem_type(each.node.output[0]) in _FLOATS][:most]


def described(gates: Sequence[Untaken]) -> str:
    """Describe sides of gates that no sample took (`Untaken`) in words, for a note."""
    sides: Mapping[str, tuple[str, str]] = {"If": ("else", "then")}
    words = [
        f"the numbers between the limits of Clip '{each.value}'"
        if each.op_type == "Clip"
        else f"the {sides.get(each.op_type, ('second', 'first'))[each.side]} side of {each.op_type} '{each.value}'"
        for each in gates[:4]
    ]
    more = f" and {len(gates) - 4} more" if len(gates) > 4 else ""
    return ", ".join(words) + more
