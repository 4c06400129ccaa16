"""Find the sides of If and Where that no sample took, so that nothing is known of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper

from triune.core.datatypes import Array
from triune.graph.values import Values

_MOST = 64
"""The number of conditions that are watched."""


@dataclass(frozen=True, slots=True)
class Untaken:
    """A side of a gate that no sample took.

    Attributes:
        value: the name of the gate's first result.
        op_type: "If" or "Where".
        side: whether it is the side that is taken if the condition is true.
    """

    value: str
    op_type: str
    side: bool


class Gates:
    """The conditions of a model's main graph, and the values that they had.

    Attributes:
        model: a copy of the model, with the conditions as further outputs; the model itself if there are none.
    """

    def __init__(self, model: ModelProto) -> None:
        """`model` is not changed. Conditions that are inputs or constants of it are not watched unless they are of
        an If.
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
        self._seen: dict[str, set[bool]] = {condition: set() for condition, _, _ in self._gates}
        listed = {value.name for value in model.graph.output}
        self._given = given
        self._added = [name for name in self._seen if name not in listed | given]
        self.model = model
        if self._added:
            self.model = ModelProto()
            self.model.CopyFrom(model)
            self.model.graph.output.extend(
                helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in self._added
            )

    def learn(self, inputs: Mapping[str, Array], results: Mapping[str, Array]) -> dict[str, Array]:
        """Note what the conditions were in one run; returns the results without them."""
        for name, seen in self._seen.items():
            array = results.get(name, inputs.get(name))
            if array is not None:
                seen.update(bool(each) for each in np.unique(array))
        return {name: array for name, array in results.items() if name not in self._added}

    def untaken(self) -> Iterator[Untaken]:
        """The sides that were not taken in any run."""
        for condition, value, op_type in self._gates:
            for side in (True, False):
                if side not in self._seen[condition]:
                    yield Untaken(value, op_type, side)


def described(gates: Sequence[Untaken]) -> str:
    """The sides in words, for a note."""
    sides = {("If", True): "then", ("If", False): "else", ("Where", True): "first", ("Where", False): "second"}
    words = [f"the {sides[each.op_type, each.side]} side of {each.op_type} '{each.value}'" for each in gates[:4]]
    more = f" and {len(gates) - 4} more" if len(gates) > 4 else ""
    return ", ".join(words) + more
