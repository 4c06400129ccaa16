"""Replace the nodes that exporters write for HardSwish by the operator HardSwish.

Howard et al., "Searching for MobileNetV3" (2019): x * min(max(x + 3, 0), 6) / 6.
"""

from collections.abc import Mapping

from onnx import ModelProto

from triune.graph.editing import Edit, edit_graphs, opset_of
from triune.graph.passes.factors import is_near, replace_gates
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of

FIRST_OPSET = 14
"""The first operator set with HardSwish."""


class RecoverHardSwish(GraphPass):
    """Given x * clip(x + 3, 0, 6) / 6 in fp32, or x * HardSigmoid(x) with slope 1/6. Result: HardSwish."""

    name = "recover_hard_swish"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Write HardSwish in place of the pattern in `model`, if its operator set has HardSwish.

        `model` is changed. `Tidy` removes what nothing reads any more.
        """
        if opset_of(model) >= FIRST_OPSET:
            edit_graphs(model, lambda edit: replace_gates(edit, _hard_swish))
        return model


def _hard_swish(edit: Edit, x: str, gate: str, number: float) -> tuple[str, Mapping[str, str]] | None:
    slope = _slope(edit, x, gate)
    return ("HardSwish", {}) if slope is not None and is_near(number * slope, 1 / 6) else None


def _slope(edit: Edit, x: str, gate: str) -> float | None:
    """The slope of `gate` as a function of x: 1 if it is clip(x + 3, 0, 6), 1/6 if it is HardSigmoid(x) of that slope;
    None if it is another value.
    """
    node = edit.producer(gate, "Clip", "HardSigmoid")
    if node is None:
        return None
    if node.op_type == "HardSigmoid":
        attributes = attributes_of(node)
        is_sixth = is_near(attributes.get("alpha", 0.2), 1 / 6) and attributes.get("beta", 0.5) == 0.5
        return 1 / 6 if is_sixth and node.input[0] == x else None
    add = edit.producer(node.input[0], "Add")
    limits = [edit.scalar(name) for name in list(node.input)[1:]]
    if add is None or limits != [0, 6]:
        return None
    pairs = (add.input, list(add.input)[::-1])
    return 1.0 if any(name == x and edit.scalar(three) == 3 for name, three in pairs) else None
