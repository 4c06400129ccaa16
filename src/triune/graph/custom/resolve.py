"""Add the function bodies of a model's custom operators to the model, and find the operators that only numpy can
compute.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import onnx.defs
import onnx.inliner
from onnx import FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.calls import problem_of_calls
from triune.graph.custom.collection import CustomOps, Id
from triune.graph.index import label
from triune.graph.values import nodes_of_model, nodes_within, subgraphs_of

_FIRST_OF_ONE_MEANING = 13
"""From this operator set on, if two versions of an operator have the same attributes and numbers of operands, they
differ only in the accepted types, and in corrected rounding of sizes (AveragePool 22, Resize 19).
"""

_FIRST_IR_WITH_FUNCTIONS = 8

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs


def with_bodies(model: ModelProto, ops: CustomOps) -> ModelProto | None:
    """Replace each custom operator that a model uses by its body.

    ONNX's own inliner does it, with names that are unique in the model. It takes only bodies of the model's operator
    set. A function that the model has already is not replaced.

    Args:
        model: a result of `graph.load.load`; not changed.
        ops: the custom operators.

    Returns:
        a copy with the bodies; None if the model uses no custom operator with a body.

    Raises:
        InvalidArgumentError: a body is of another operator set than the model, in which its operators differ, or bodies
            call themselves.
    """
    known = {(each.domain, each.name) for each in model.functions}
    added: list[Id] = []
    nodes = list(nodes_of_model(model))
    while nodes:
        node = nodes.pop()
        op = ops.ops.get((node.domain, node.op_type))
        if op is not None and op.body is not None and (op.domain, op.name) not in known:
            known.add((op.domain, op.name))
            added.append((op.domain, op.name))
            nodes += nodes_within(op.body.node)
    if not added:
        return None
    if problem := problem_of_calls(body for key in added if (body := ops.ops[key].body) is not None):
        raise InvalidArgumentError(f"the custom operators cannot be replaced by their bodies: {problem}")
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, _FIRST_IR_WITH_FUNCTIONS)
    imported = {each.domain for each in copy.opset_import}
    for key in added:
        body = ops.ops[key].body
        assert body is not None
        copy.functions.add().CopyFrom(_as_of(body, _version_of(copy.opset_import)))
        for domain, version in [(key[0], 1), *((each.domain, each.version) for each in body.opset_import)]:
            if domain not in imported and domain != "ai.onnx":
                imported.add(domain)
                copy.opset_import.append(helper.make_opsetid(domain, version))
    _give_defaults(copy, ops, added)
    return onnx.inliner.inline_selected_functions(copy, added)


def told_hidden(model: ModelProto, ops: CustomOps) -> tuple[str, ...]:
    """A sentence on the custom operators that a model uses and has as functions of its own, which come first; empty if
    there are none.
    """
    used = {(node.domain, node.op_type) for node in nodes_of_model(model)}
    both = sorted(key for key in ops.ops if key in used and _has_function(model, key))
    if not both:
        return ()
    names = ", ".join(f"'{domain}::{name}'" for domain, name in both)
    return (f"the model has functions of its own called {names}: these compute, not the custom operators",)


def _give_defaults(model: ModelProto, ops: CustomOps, keys: Sequence[Id]) -> None:
    """Write the defaults of attributes into the calls of functions: ONNX's inliner (1.23) leaves them out."""
    for node in nodes_of_model(model):
        body = ops.ops[node.domain, node.op_type].body if (node.domain, node.op_type) in keys else None
        if body is not None:
            given = {each.name for each in node.attribute}
            node.attribute.extend(each for each in body.attribute_proto if each.name not in given)


def _version_of(imports: Iterable[OperatorSetIdProto]) -> int:
    """The version of ONNX's operator set; 0 if it is not imported."""
    return next((each.version for each in imports if each.domain in ("", "ai.onnx")), 0)


def _as_of(body: FunctionProto, version: int) -> FunctionProto:
    """The body, declared for the version of ONNX's operators that its model uses.

    ONNX allows a function to be of another version than its model. But ONNX Runtime (1.32) silently computes it in the
    model's version, and ONNX's inliner, ONNX's checker and OpenVINO refuse it.
    """
    own = _version_of(body.opset_import)
    if own == version:
        return body
    nodes = [node for node in nodes_within(body.node) if node.domain in ("", "ai.onnx")]
    is_old = min(own, version) < _FIRST_OF_ONE_MEANING
    if different := sorted({node.op_type for node in nodes if is_old or _form(node, own) != _form(node, version)}):
        raise InvalidArgumentError(
            f"the body of custom operator '{body.domain}::{body.name}' is of operator set {own}, and the model of set "
            f"{version}, in which these operators may differ: {', '.join(different)}; write the body in set {version}, "
            f"or export the model in set {own}"
        )
    copy = FunctionProto.FromString(body.SerializeToString())
    for each in copy.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = version
    return copy


def _form(node: NodeProto, version: int) -> tuple[object, ...] | None:
    """The schema of a node's operator in a version of ONNX, without its types; None if there is no such operator."""
    if not _schemas.has(node.op_type, version, ""):
        return None
    schema = _schemas.get_schema(node.op_type, version, "")
    defaults = {name: each.default_value.SerializeToString() for name, each in schema.attributes.items()}
    counts = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
    return (*counts, schema.domain, tuple(sorted(defaults.items())))


def numpy_nodes(model: ModelProto, ops: CustomOps) -> list[int]:
    """The positions of the nodes of a graph that only numpy computes.

    Raises:
        UnsupportedError: there is one within a branch, a loop or a function, where the graph cannot be cut.
    """
    found = [at for at, node in enumerate(model.graph.node) if _is_numpy(node, model, ops)]
    bodies = [graph for node in model.graph.node for graph in subgraphs_of(node)]
    for node in (node for body in (*bodies, *model.functions) for node in nodes_within(body.node)):
        if _is_numpy(node, model, ops):
            raise UnsupportedError(
                f"{label(node)} is in a branch, a loop or a function, and custom operator "
                f"'{node.domain}::{node.op_type}' has a numpy function only, which cannot be called from there; give "
                "it a body of ONNX operators: custom_op(..., body=...)"
            )
    return found


def require_bodies(model: ModelProto, ops: CustomOps, where: str) -> None:
    """Raises UnsupportedError, with the nodes and the remedy, if a model has custom operators without a body.

    `where` is what needs the body: "a conversion to Core ML".
    """
    nodes = [node for node in nodes_of_model(model) if _is_numpy(node, model, ops)]
    if nodes:
        raise UnsupportedError(
            f"{where} needs custom operators with a body of ONNX operators, and these have a numpy function only, "
            f"which runs on 'cpu': {_named(nodes)}; give them one: custom_op(..., body=...)"
        )


def _named(nodes: Sequence[NodeProto]) -> str:
    shown = [f"{node.domain}::{node.op_type} '{node.name or next(filter(None, node.output), '')}'" for node in nodes]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _is_numpy(node: NodeProto, model: ModelProto, ops: CustomOps) -> bool:
    op = ops.ops.get((node.domain, node.op_type))
    return op is not None and op.body is None and not _has_function(model, (node.domain, node.op_type))


def _has_function(model: ModelProto, key: Id) -> bool:
    return any((each.domain, each.name) == key for each in model.functions)
