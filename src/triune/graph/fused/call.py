"""Builds calls of ONNX functions in a model. A runtime computes each call as one operation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto, helper

from triune.graph.core_ops import OPSET

DOMAIN = "triune.fused"
"""The domain of the functions that fused patterns become."""

RESULT = "output"
"""The name of a function's output."""

Setting = int | float | list[int]


@dataclass(frozen=True, slots=True)
class FusedCall:
    """A pattern, written as a function and the call that replaces it.

    Attributes:
        kind: the name of Apple's composite operation, for instance "rms_norm".
        output: the node that computes the pattern's result; the call replaces it.
        operands: for each input of the function, the name of the value that the call passes.
        body: the nodes of the function, which compute the value "output" from the inputs.
        settings: the attributes of the call, for instance epsilon.
    """

    kind: str
    output: NodeProto
    operands: Mapping[str, str]
    body: Sequence[NodeProto]
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])


def add_call(model: ModelProto, call: FusedCall) -> NodeProto:
    """Add the function of `call` to the model; returns the node that calls the function and replaces `call.output`."""
    name = f"{call.kind}_{len(model.functions)}"
    function: FunctionProto = helper.make_function(
        DOMAIN,
        name,
        list(call.operands),
        [RESULT],
        list(call.body),
        [helper.make_opsetid("", OPSET)],
        ["kind", *call.settings],
    )
    model.functions.append(function)
    if not any(each.domain == DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    # `Any`, since onnx's type annotations are incomplete.
    settings: dict[str, Any] = dict(call.settings)
    return helper.make_node(
        name,
        list(call.operands.values()),
        [call.output.output[0]],
        name=call.output.name or call.output.output[0],
        domain=DOMAIN,
        kind=call.kind,
        **settings,
    )


def renamed(nodes: Sequence[NodeProto], names: Mapping[str, str]) -> list[NodeProto]:
    """Copies of nodes, with the names of inputs and outputs replaced by `names`, from old to new."""
    copies: list[NodeProto] = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        for values in (copy.input, copy.output):
            for position, name in enumerate(values):
                values[position] = names.get(name, name)
        copies.append(copy)
    return copies
