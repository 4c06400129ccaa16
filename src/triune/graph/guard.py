"""Rewrite nodes that would crash the process in ONNX Runtime.

ONNX Runtime (1.32) reads an optional input that is left out as "" at the end of a node as if it were there (the bias of
LayerNormalization: SIGSEGV). And it divides the lowest number of INT32 or INT64 by -1, which raises SIGFPE on x86. ONNX
allows such an omitted input. It does not define that quotient, which wraps around here, as in numpy. For operators that
crash with sizes or numbers of 0 (`faults`), `checks` inserts divisions by these, for which ONNX Runtime raises an
error. Draws of random numbers without a spread would end the process, too (`draws`).
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
from triune.graph.draws import fit_draws
from triune.graph.names import Names
from triune.graph.values import Values, nodes_of_model, subgraphs_of

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs

_WIDE = {TensorProto.INT32: np.iinfo(np.int32).min, TensorProto.INT64: np.iinfo(np.int64).min}
"""The integer types for which a division by -1 may crash, and their lowest numbers."""

_OVERFLOW = "SIGFPE if the lowest integer is divided by -1"

_FIRST_WHERE = 9
"""The first operator set that has Where, and Div without attributes."""

_FIRST_RESHAPE = 7
"""The first operator set that has Div without attributes, and Reshape with the shape as an input."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """The result of `guard`.

    Attributes:
        is_changed: whether the model was changed.
        crash_risk: a node that may still crash the process, and how, so that the model should run in a separate
            process; "" if there is none.
    """

    is_changed: bool
    crash_risk: str = ""


def guard(model: ModelProto) -> Guarded:
    """Change a model of any operator set so that it computes the same, but does not crash ONNX Runtime's process.

    If tensors are in files, `locate_data` must have been called on the model.
    """
    is_changed = sum(_drop_trailing(node) for node in nodes_of_model(model)) > 0
    is_changed |= fit_draws(nodes_of_model(model)) > 0
    crash_risk = next(
        (f"{_label(node)}: {_OVERFLOW}" for each in model.functions for node in _divisions(_body(each), None)), ""
    )
    if any(_divisions(model.graph, None)):
        divisions = _Divisions(Names(model.graph), can_write=_opset(model) >= _FIRST_WHERE)
        divisions.graph(model.graph, infer_bare(model).graph, None, None)
        is_changed, crash_risk = is_changed or divisions.is_changed, crash_risk or divisions.crash_risk
    crash_risk = crash_risk or next((found for node in nodes_of_model(model) if (found := _omission(node))), "")
    checks = Checks()
    for body in (model.graph, *model.functions):
        imports = body if isinstance(body, FunctionProto) else model
        checks.body(body, can_write=_opset(imports) >= _FIRST_RESHAPE)
    return Guarded(is_changed or checks.is_changed, crash_risk or checks.crash_risk)


def _opset(of: ModelProto | FunctionProto) -> int:
    return next((each.version for each in of.opset_import if each.domain in ("", "ai.onnx")), 0)


def _drop_trailing(node: NodeProto) -> int:
    """Remove omitted inputs ("") from the end of a node's list of inputs, as far as the operator allows; returns how
    many were removed.
    """
    num_given = len(node.input)
    fewest = 0
    if num_given and not node.input[-1] and _schemas.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
        # Keep as many inputs as the schema requires: that of Loop requires two, and both may be "".
        fewest = _schemas.get_schema(node.op_type, "" if node.domain == "ai.onnx" else node.domain).min_input
    while num_given > fewest and not node.input[num_given - 1]:
        num_given -= 1
    num_dropped = len(node.input) - num_given
    del node.input[num_given:]
    return num_dropped


def _omission(node: NodeProto) -> str:
    """A message if a node leaves out a required input, which may crash the process; "" if not.

    ONNX Runtime does not check this, and reads the missing input at run time.
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
            return f"{_label(node)}: its input {position} is left out, which is not optional"
    return ""


def _body(function: FunctionProto) -> GraphProto:
    return GraphProto(node=function.node)


def _divisions(graph: GraphProto, outer: Values | None) -> Iterator[NodeProto]:
    """Yield the divisions in a graph and its subgraphs that may overflow."""
    values = Values(graph, outer)
    for node in graph.node:
        if _may_overflow(node, values):
            yield node
        for inner in subgraphs_of(node):
            yield from _divisions(inner, values)


def _may_overflow(node: NodeProto, values: Values) -> bool:
    """Whether a node may divide the lowest integer by -1. The types of its operands may be unknown."""
    if node.op_type != "Div" or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return False
    if node.input[0] == node.input[1]:
        # x / x never overflows: it is 1, or an error for 0. `checks` inserts such divisions.
        return False
    elem_type = _elem_type(node, values)
    if elem_type and elem_type not in _WIDE:
        return False
    dividend, divisor = (values.constant(name) for name in node.input[:2])
    if divisor is not None and not np.any(divisor == -1):
        return False
    return dividend is None or bool(np.any(dividend == np.iinfo(dividend.dtype).min))


def _elem_type(node: NodeProto, values: Values) -> int:
    """The element type of dividend, divisor and quotient; 0 if it is not known."""
    return next(filter(None, (values.elem_type(name) for name in (*node.input, *node.output))), 0)


class _Divisions:
    """Rewrites the divisions of a graph and its subgraphs that may overflow."""

    def __init__(self, names: Names, *, can_write: bool) -> None:
        self.is_changed = False
        self.crash_risk = ""
        self._names = names
        self._can_write = can_write

    def graph(
        self, graph: GraphProto, inferred: GraphProto, outer: Values | None, outer_inferred: Values | None
    ) -> None:
        """Rewrite the divisions that may overflow, in a graph and its subgraphs.

        Args:
            graph: changed.
            inferred: a copy of the graph with inferred types.
            outer: the values of the graph around `graph`.
            outer_inferred: the values of the graph around `inferred`.
        """
        values, inferred_values = Values(graph, outer), Values(inferred, outer_inferred)
        nodes: list[NodeProto] = []
        for node, known in zip(list(graph.node), inferred.node, strict=True):
            for inner, inner_inferred in zip(subgraphs_of(node), subgraphs_of(known), strict=True):
                self.graph(inner, inner_inferred, values, inferred_values)
            nodes += self._guarded(node, inferred_values) if _may_overflow(node, values) else [node]
        if len(nodes) > len(graph.node):
            copies = GraphProto(node=nodes)
            del graph.node[:]
            graph.node.extend(copies.node)
            self.is_changed = True

    def _guarded(self, node: NodeProto, inferred_values: Values) -> list[NodeProto]:
        """Write x / d as s * (x / (s * d)), with s = -1 where d is -1, and s = 1 elsewhere. The product wraps
        around.
        """
        elem_type = _elem_type(node, inferred_values)
        if elem_type and elem_type not in _WIDE:
            return [node]
        if not elem_type or not self._can_write:
            self.crash_risk = self.crash_risk or f"{_label(node)}: {_OVERFLOW}"
            return [node]
        builder = Builder(self._names.prefix(f"{node.name or node.output[0]}/guarded"))
        dividend, divisor = node.input
        is_negation = builder.op("Equal", divisor, builder.typed(-1, elem_type))
        sign = builder.op("Where", is_negation, divisor, builder.typed(1, elem_type))
        quotient = builder.op("Div", dividend, builder.op("Mul", divisor, sign))
        builder.put("Mul", [quotient, sign], list(node.output))
        return builder.nodes


def _label(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"
