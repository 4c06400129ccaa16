"""Nodes at which ONNX Runtime ends the process, written so that it does not.

ONNX Runtime (1.32) reads an optional input that is left out as "" at the end of a node as if it were there
(LayerNormalization's bias: SIGSEGV), and divides the least number of INT32 and INT64 by -1, which the processors of
x86 answer with SIGFPE. ONNX says that the first is valid, and nothing of the second: here it wraps, as in numpy. Sizes
and numbers of 0 that end it (`faults`) are divided by before: ONNX Runtime refuses to divide a whole number by 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.defs
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from triune.graph.bare import infer_bare
from triune.graph.builder import Builder
from triune.graph.checks import Checks
from triune.graph.names import Names
from triune.graph.values import Values, subgraphs_of

# onnx's stubs lack most of a schema's members.
_schemas: Any = onnx.defs

_WIDE = {TensorProto.INT32: np.iinfo(np.int32).min, TensorProto.INT64: np.iinfo(np.int64).min}
"""The types whose quotients a processor computes itself, and their least numbers."""

_OVERFLOW = "SIGFPE where the least of whole numbers is divided by -1"

_FIRST_WHERE = 9
"""The operator set that has Where, and Div without attributes."""

_FIRST_RESHAPE = 7
"""The operator set that has Div without attributes, and Reshape by a value."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """The result of `guard`.

    Attributes:
        is_changed: the model is another one than it was.
        left: a node that may still end the process, and how: the model is for a process of its own. Empty where there
            is none.
    """

    is_changed: bool
    left: str = ""


def guard(model: ModelProto) -> Guarded:
    """Change a model so that it computes the same, and does not end ONNX Runtime's process. For any operator set.

    If tensors are in files, `locate_data` must have been called on the model.
    """
    is_changed = sum(_drop_trailing(node) for node in nodes_of_model(model)) > 0
    left = next(
        (f"{_said(node)}: {_OVERFLOW}" for each in model.functions for node in _divisions(_body(each), None)), ""
    )
    if any(_divisions(model.graph, None)):
        divisions = _Divisions(Names(model.graph), can_write=_opset(model) >= _FIRST_WHERE)
        divisions.graph(model.graph, infer_bare(model).graph, None, None)
        is_changed, left = is_changed or divisions.is_changed, left or divisions.left
    left = left or next((found for node in nodes_of_model(model) if (found := _omission(node))), "")
    checks = Checks()
    for body in (model.graph, *model.functions):
        imports = body if isinstance(body, FunctionProto) else model
        checks.body(body, can_write=_opset(imports) >= _FIRST_RESHAPE)
    return Guarded(is_changed or checks.is_changed, left or checks.left)


def _opset(of: ModelProto | FunctionProto) -> int:
    return next((each.version for each in of.opset_import if each.domain in ("", "ai.onnx")), 0)


def _drop_trailing(node: NodeProto) -> int:
    """Take away the inputs at the end that are left out, as far as the operator has fewer. How many were there?"""
    num_given = len(node.input)
    fewest = 0
    if num_given and not node.input[-1] and _schemas.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
        # A Loop has two, either of which may be left out, and so both.
        fewest = _schemas.get_schema(node.op_type, "" if node.domain == "ai.onnx" else node.domain).min_input
    while num_given > fewest and not node.input[num_given - 1]:
        num_given -= 1
    num_dropped = len(node.input) - num_given
    del node.input[num_given:]
    return num_dropped


def _omission(node: NodeProto) -> str:
    """Why a node is unsafe: it leaves out a required input. Empty if it leaves out none.

    ONNX Runtime does not check this, and reads the input at run time.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    if all(node.input) or not _schemas.has(node.op_type, domain):
        return ""
    formal = _schemas.get_schema(node.op_type, domain).inputs
    for position, name in enumerate(node.input):
        is_optional = (
            position < len(formal) and formal[position].option == _schemas.OpSchema.FormalParameterOption.Optional
        )
        if not name and not is_optional:
            return f"{_said(node)}: its input {position} is left out, which is not optional"
    return ""


def nodes_of_model(model: ModelProto) -> Iterator[NodeProto]:
    """All nodes of a model, those of its functions and of the graphs within nodes among them."""
    for body in (model.graph, *model.functions):
        for node in body.node:
            yield from _node_and_within(node)


def _node_and_within(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in subgraphs_of(node):
        for inner in graph.node:
            yield from _node_and_within(inner)


def _body(function: FunctionProto) -> GraphProto:
    return GraphProto(node=function.node)


def _divisions(graph: GraphProto, outer: Values | None) -> Iterator[NodeProto]:
    """The divisions of a graph and of those within that are to be looked at."""
    values = Values(graph, outer)
    for node in graph.node:
        if _may_overflow(node, values):
            yield node
        for inner in subgraphs_of(node):
            yield from _divisions(inner, values)


def _may_overflow(node: NodeProto, values: Values) -> bool:
    """Is it a division of whole numbers, or of numbers that are not known, which may have a divisor of -1?"""
    if node.op_type != "Div" or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return False
    elem_type = _elem_type(node, values)
    if elem_type and elem_type not in _WIDE:
        return False
    dividend, divisor = (values.constant(name) for name in node.input[:2])
    if divisor is not None and not np.any(divisor == -1):
        return False
    return dividend is None or bool(np.any(dividend == np.iinfo(dividend.dtype).min))


def _elem_type(node: NodeProto, values: Values) -> int:
    """The element type that dividend, divisor and quotient share; 0 where it is not known."""
    return next(filter(None, (values.elem_type(name) for name in (*node.input, *node.output))), 0)


class _Divisions:
    """Guards the divisions of a graph and of those within."""

    def __init__(self, names: Names, *, can_write: bool) -> None:
        self.is_changed = False
        self.left = ""
        self._names = names
        self._can_write = can_write

    def graph(self, graph: GraphProto, inferred: GraphProto, outer: Values | None, told: Values | None) -> None:
        """Args:
        graph: to be changed.
        inferred: the same, with what is inferred of its values.
        outer, told: the values around both.
        """
        values, told = Values(graph, outer), Values(inferred, told)
        nodes: list[NodeProto] = []
        for node, known in zip(list(graph.node), inferred.node, strict=True):
            for inner, inner_inferred in zip(subgraphs_of(node), subgraphs_of(known), strict=True):
                self.graph(inner, inner_inferred, values, told)
            nodes += self._guarded(node, told) if _may_overflow(node, values) else [node]
        if len(nodes) > len(graph.node):
            copies = GraphProto(node=nodes)
            del graph.node[:]
            graph.node.extend(copies.node)
            self.is_changed = True

    def _guarded(self, node: NodeProto, told: Values) -> list[NodeProto]:
        """X / d as s * (x / (s * d)) where s is -1 where d is -1, and 1 elsewhere."""
        elem_type = _elem_type(node, told)
        if elem_type and elem_type not in _WIDE:
            return [node]
        if not elem_type or not self._can_write:
            self.left = self.left or f"{_said(node)}: {_OVERFLOW}"
            return [node]
        builder = Builder(self._names.prefix(f"{node.name or node.output[0]}/guarded"))
        dividend, divisor = node.input
        is_negation = builder.op("Equal", divisor, builder.typed(-1, elem_type))
        sign = builder.op("Where", is_negation, divisor, builder.typed(1, elem_type))
        quotient = builder.op("Div", dividend, builder.op("Mul", divisor, sign))
        builder.put("Mul", [quotient, sign], list(node.output))
        return builder.nodes


def _said(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
