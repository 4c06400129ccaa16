"""Nodes that become a call of a function of the model: what a runtime knows whole stays whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto, helper

from triune.graph.core_ops import OPSET

DOMAIN = "triune.whole"
"""The domain of the functions."""

RESULT = "output"
"""The name of a function's output."""

Setting = int | float | list[int]


@dataclass(frozen=True, slots=True)
class Outline:
    """Something that is to stay whole.

    Attributes:
        kind: its name, as Apple's composite operations have it: "rms_norm".
        end: the node that gives the result.
        operands: the operand's name to the value that it is.
        body: nodes that compute RESULT of the operands' names.
        settings: what says the rest: epsilons, scales.
    """

    kind: str
    end: NodeProto
    operands: Mapping[str, str]
    body: Sequence[NodeProto]
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])


def call(model: ModelProto, outline: Outline) -> NodeProto:
    """Add the function to the model; the node that calls it, in the place of `outline.end`."""
    name = f"{outline.kind}_{len(model.functions)}"
    function: FunctionProto = helper.make_function(
        DOMAIN,
        name,
        list(outline.operands),
        [RESULT],
        list(outline.body),
        [helper.make_opsetid("", OPSET)],
        ["kind", *outline.settings],
    )
    model.functions.append(function)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    end = outline.end
    # onnx publishes partial types.
    settings: dict[str, Any] = dict(outline.settings)
    return helper.make_node(
        name,
        list(outline.operands.values()),
        [end.output[0]],
        name=end.name or end.output[0],
        domain=DOMAIN,
        kind=outline.kind,
        **settings,
    )


def renamed(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> list[NodeProto]:
    """Copies of nodes that read and give other names."""
    copies: list[NodeProto] = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        for ends in (copy.input, copy.output):
            for place, name in enumerate(ends):
                ends[place] = names.get(name, name)
        copies.append(copy)
    return copies
