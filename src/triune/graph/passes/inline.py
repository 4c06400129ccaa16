"""Functions replaced by their bodies."""

from collections.abc import Collection
from typing import Any

import onnx.defs
import onnx.inliner
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto

from triune.core.errors import InvalidArgumentError
from triune.graph.core_ops import CORE_OPS, OPSET
from triune.graph.passes.infer import Infer
from triune.graph.values import Values, subgraphs_of

_DOMAIN = "triune.body"

_OURS = ("CastLike", "ReduceLogSumExp")
"""Operators that are decomposed instead: CastLike is a Cast once its target's type is known, ReduceLogSumExp's body
overflows.
"""

# onnx's stubs lack most of a schema's members.
_schemas: Any = onnx.defs

MAX_DEPTH = 32
"""Bodies call functions whose bodies call others: none in ONNX's standard nests deeper than a few."""


class Inline:
    """Given calls of functions. Result: their bodies; of the model's own functions and of every standard operator that
    ONNX defines by others (Attention, LogSoftmax), but for core ops and those that are to be kept.

    A body that depends on a type which is not known yet stays a call: a later round may know it.
    """

    name = "inline"

    def __init__(self, keep: Collection[str] = ()) -> None:
        """`keep`: operators that stay whole though they have a body."""
        self._kept = {*CORE_OPS, *_OURS, *keep}

    def __call__(self, model: ModelProto) -> ModelProto:
        """Raises InvalidArgumentError where the model's own functions call each other in a circle."""
        try:
            model = onnx.inliner.inline_local_functions(model)
            for _ in range(MAX_DEPTH):
                names = [op for op in _ops(model.graph) if self._has_body(op, depends_on_types=False)]
                if not names:
                    break
                _write_defaults(model.graph, set(names))
                model = onnx.inliner.inline_selected_functions(model, names, inline_schema_functions=True)
            model = Infer()(model)
            if self._write_bodies(model, model.graph, None):
                model = onnx.inliner.inline_local_functions(model, convert_version=True)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InvalidArgumentError(f"the model's functions cannot be inlined: {reason}") from error
        return model

    def _has_body(self, op: tuple[str, str], *, depends_on_types: bool) -> bool:
        domain, name = op
        version = OPSET if not domain else 1
        if (not domain and name in self._kept) or not _schemas.has(name, version, domain):
            return False
        schema = _schemas.get_schema(name, version, domain)
        if depends_on_types:
            return schema.has_context_dependent_function
        return schema.has_function and not schema.has_context_dependent_function

    def _write_bodies(self, model: ModelProto, graph: GraphProto, outer: Values | None) -> int:
        """Make the model's own functions of calls whose bodies depend on types. ONNX's inliner does so too, but fails
        where an input is left out (onnx 1.23).
        """
        values = Values(graph, outer)
        count = 0
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                count += self._write_bodies(model, subgraph, values)
            op = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
            if not self._has_body(op, depends_on_types=True):
                continue
            types = [values.type(name) if name else TypeProto() for name in node.input]
            if any(each is None for each in types):
                continue
            _write_defaults_of(node)
            schema = _schemas.get_schema(node.op_type, OPSET if not node.domain else 1, node.domain)
            body = FunctionProto.FromString(
                schema.get_context_dependent_function(
                    node.SerializeToString(), [each.SerializeToString() for each in types if each is not None]
                )
            )
            body.domain, body.name = _DOMAIN, f"{node.op_type}{len(model.functions)}"
            node.domain, node.op_type = body.domain, body.name
            model.functions.append(body)
            count += 1
        if count and all(each.domain != _DOMAIN for each in model.opset_import):
            model.opset_import.append(OperatorSetIdProto(domain=_DOMAIN, version=1))
        return count


def _write_defaults(graph: GraphProto, ops: set[tuple[str, str]]) -> None:
    for node in graph.node:
        for subgraph in subgraphs_of(node):
            _write_defaults(subgraph, ops)
        if (node.domain, node.op_type) in ops:
            _write_defaults_of(node)


def _write_defaults_of(node: NodeProto) -> None:
    """A body's constant that is an attribute of its function has no value where the call leaves the attribute out."""
    given = {attribute.name for attribute in node.attribute}
    schema = _schemas.get_schema(node.op_type, OPSET if not node.domain else 1, node.domain)
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _ops(graph: GraphProto) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for node in graph.node:
        found.add(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        for subgraph in subgraphs_of(node):
            found |= _ops(subgraph)
    return found
