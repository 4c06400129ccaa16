"""Replace calls of ONNX functions by the functions' bodies."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx.defs
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

from triune.core.errors import InvalidArgumentError, UnsupportedError, reworded
from triune.graph.core_ops import CORE_OPS, OPSET
from triune.graph.names import Names, defined_names, rename
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.upgrade import Upgrade
from triune.graph.passes.upgrade.adopted import ADOPTED
from triune.graph.values import Values, subgraphs_of

_DECOMPOSED = (
    *("CastLike", "ReduceLogSum", "ReduceLogSumExp", "DynamicQuantizeLinear", "AffineGrid"),
    *("MeanVarianceNormalization", "GroupNormalization", "Celu"),
)
"""Operators with a function body in ONNX that `graph.decompose` replaces instead, because the body has faults.

ReduceLogSum's body takes logarithms of integers, ReduceLogSumExp's overflows, DynamicQuantizeLinear's divides 0 by 0
if all elements are 0, AffineGrid's loses a batch of size 1, those of MeanVarianceNormalization and GroupNormalization
take square roots of negative variances, Celu's is right only if alpha is positive. CastLike is just a Cast once the
target's type is known.
"""

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs

MAX_DEPTH = 32
"""The largest depth of nested calls of functions. Those of ONNX's standard are only a few deep."""

_Id: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of a function."""


@dataclass(frozen=True, slots=True)
class _Calls:
    """The model, its functions by their identity, and the names that are used in it."""

    model: ModelProto
    functions: Mapping[_Id, FunctionProto]
    names: Names


class Inline(GraphPass):
    """Given calls of functions: those of the model, and standard operators for which ONNX has a function body
    (Attention, LogSoftmax), except core operators and those to keep. Result: the functions' bodies.

    The values and nodes of a body get new names for each call, since a model may call a function twice. A call stays if
    its body depends on a type that is not known yet; when the passes are repeated, it may be known.
    """

    name = "inline"

    def __init__(self, keep: Collection[str] = (), *, own_only: bool = False) -> None:
        """`keep` has the names of operators that are not inlined although they have a body. With `own_only` only the
        model's own functions are inlined, and no operator.
        """
        self._kept = {*CORE_OPS, *_DECOMPOSED, *keep}
        self._own_only = own_only

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace calls of functions in `model`, in place, by the functions' bodies.

        Raises:
            InvalidArgumentError: a call does not fit its function, or functions call each other in a circle.
            UnsupportedError: a body cannot be upgraded to the model's operator set.
        """
        for _ in range(MAX_DEPTH):
            functions = {_id(each.domain, each.name, each.overload): each for each in model.functions}
            if not self._inline(_Calls(model, functions, Names(model.graph)), model.graph, None):
                del model.functions[:]
                return model
            model = Infer()(model)
        raise InvalidArgumentError(
            f"the model's functions call each other more than {MAX_DEPTH} deep: functions that call themselves cannot "
            "be converted"
        )

    def _inline(self, calls: _Calls, graph: GraphProto, outer: Values | None) -> bool:
        """Replace each call by its body, which may have calls again. Returns whether there was any call."""
        values = Values(graph, outer)
        nodes: list[NodeProto] = []
        is_changed = False
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                is_changed |= self._inline(calls, subgraph, values)
            function = self._function(node, calls, values)
            if function is None:
                nodes.append(node)
                continue
            body = _with_attributes(node, function)
            body = _upgraded(node, body, calls.model, values)
            prefix = calls.names.prefix(f"{node.name or next(filter(None, node.output), '')}/{node.op_type}")
            nodes.extend(_renamed_body(node, body, prefix, graph))
            is_changed = True
        if len(nodes) != len(graph.node) or any(a is not b for a, b in zip(nodes, graph.node, strict=True)):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        return is_changed

    def _function(self, node: NodeProto, calls: _Calls, values: Values) -> FunctionProto | None:
        """The function that a node calls; None if it calls none, or if the types of its inputs are not known yet."""
        domain, name, overload = _id(node.domain, node.op_type, node.overload)
        if (domain, name, overload) in calls.functions:
            return calls.functions[domain, name, overload]
        version = OPSET if not domain else 1
        if self._own_only or (not domain and name in self._kept) or not _schemas.has(name, version, domain):
            return None
        schema = _schemas.get_schema(name, version, domain)
        if schema.has_function:
            newest = max(each for each in schema.function_opset_versions if each <= version)
            body = FunctionProto.FromString(schema.get_function_with_opset_version(newest))
        elif schema.has_context_dependent_function:
            types = [values.type(each) if each else TypeProto() for each in node.input]
            if any(each is None for each in types):
                return None
            call = NodeProto.FromString(node.SerializeToString())
            call.attribute.extend(_defaults(schema, call))
            newest = max(each for each in schema.context_dependent_function_opset_versions if each <= version)
            try:
                text = schema.get_context_dependent_function_with_opset_version(
                    newest, call.SerializeToString(), [each.SerializeToString() for each in types if each is not None]
                )
            except (RuntimeError, ValueError) as error:
                raise _no_body(node, " ".join(str(error).split())) from error
            body = FunctionProto.FromString(text)
            if not body.node:
                if any(name and values.rank(name) is None for name in node.input):
                    return None
                raise _no_body(node, "ONNX has no function for them")
        else:
            return None
        body.attribute_proto.extend(_defaults(schema, node))
        return body


def _id(domain: str, name: str, overload: str) -> _Id:
    return ("" if domain == "ai.onnx" else domain, name, overload)


def _label(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or next(filter(None, node.output), '')}'"


def _no_body(node: NodeProto, reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the inputs and attributes of {_label(node)} are not what ONNX specifies: {reason}; compare their ranks and "
        "sizes with the operator's documentation"
    )


def _defaults(schema: Any, node: NodeProto) -> list[AttributeProto]:
    """The schema's default values of the attributes that a call does not set."""
    given = {attribute.name for attribute in node.attribute}
    return [
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in given and attribute.default_value.type
    ]


def _with_attributes(node: NodeProto, function: FunctionProto) -> FunctionProto:
    """The body of a function, with references to the function's attributes replaced by the values of a call."""
    body = FunctionProto.FromString(function.SerializeToString())
    attributes = {attribute.name: attribute for attribute in (*function.attribute_proto, *node.attribute)}
    if missing := [name for name in function.attribute if name not in attributes]:
        # An attribute without a default may be left out. Nodes of the body that refer to it then lack the attribute
        # too.
        attributes.update((name, AttributeProto()) for name in missing)
    _bind(body.node, attributes)
    return body


def _bind(nodes: Sequence[NodeProto], attributes: Mapping[str, AttributeProto]) -> None:
    for node in nodes:
        bound: list[AttributeProto] = []
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                bound.append(attribute)
                continue
            value = attributes.get(attribute.ref_attr_name)
            if value is not None and value.type:
                copy = AttributeProto.FromString(value.SerializeToString())
                copy.name = attribute.name
                bound.append(copy)
        if len(bound) != len(node.attribute) or any(attribute.ref_attr_name for attribute in node.attribute):
            copies = [AttributeProto.FromString(attribute.SerializeToString()) for attribute in bound]
            del node.attribute[:]
            node.attribute.extend(copies)
        for graph in subgraphs_of(node):
            _bind(graph.node, attributes)


def _upgraded(node: NodeProto, body: FunctionProto, model: ModelProto, values: Values) -> FunctionProto:
    """The body of a function upgraded to `OPSET`, with the types of the inputs of its call."""
    version = next((each.version for each in body.opset_import if each.domain in ("", "ai.onnx")), OPSET)
    imported = {each.domain for each in model.opset_import}
    model.opset_import.extend(
        each for each in body.opset_import if each.domain not in imported and each.domain not in ("", "ai.onnx")
    )
    if version == OPSET and ADOPTED not in {each.domain for each in body.opset_import}:
        return body
    inputs: list[ValueInfoProto] = []
    for formal, name in zip(body.input, (*node.input, *[""] * len(body.input)), strict=False):
        value = ValueInfoProto(name=formal)
        found = values.type(name) if name else None
        if found is not None:
            value.type.CopyFrom(found)
        inputs.append(value)
    # Drop outputs that the body does not compute: a call that leaves out inputs or outputs may have such a body.
    defined = {*defined_names(body.node), *body.input}
    outputs = [ValueInfoProto(name=name) for name in body.output if name in defined]
    graph = helper.make_graph(body.node, body.name, inputs, outputs)
    alone = helper.make_model(graph, opset_imports=body.opset_import, functions=model.functions)
    try:
        upgraded = Upgrade()(alone)
    except (InvalidArgumentError, UnsupportedError) as error:
        raise reworded(error, f"in the function that {_label(node)} calls: {error}") from error
    del body.node[:]
    body.node.extend(upgraded.graph.node)
    return body


def _renamed_body(node: NodeProto, body: FunctionProto, prefix: str, graph: GraphProto) -> list[NodeProto]:
    """The nodes of a body with new names, to replace the call `node`. The types of their values are added to
    `graph`.
    """
    if len(node.input) > len(body.input) or len(node.output) > len(body.output):
        raise InvalidArgumentError(
            f"{_label(node)} has {len(node.input)} inputs and {len(node.output)} outputs, its function "
            f"{len(body.input)} and {len(body.output)}"
        )
    names = {name: f"{prefix}/{name}" for name in defined_names(body.node)}
    names.update(zip(body.input, (*node.input, *[""] * (len(body.input) - len(node.input))), strict=True))
    wanted = [formal for formal, name in zip(body.output, node.output, strict=False) if name]
    if unknown := [formal for formal in wanted if formal not in names]:
        raise InvalidArgumentError(f"the function that {_label(node)} calls does not compute its output '{unknown[0]}'")
    given: list[NodeProto] = []
    for formal, name in zip(body.output, node.output, strict=False):
        if not name:
            continue
        if formal in body.input or names[formal] in node.output:
            # The output is also an input of the function, or the same value as another output. An Identity gives it the
            # name that the call wants.
            given.append(helper.make_node("Identity", [names[formal]], [name]))
        else:
            names[formal] = name
    for each in body.node:
        rename(each, names, prefix)
    for info in body.value_info:
        if info.name in names and names[info.name] not in node.output:
            copy = ValueInfoProto.FromString(info.SerializeToString())
            copy.name = names[info.name]
            # Remove names of dimensions: the names in a function have no meaning in the model.
            for dim in copy.type.tensor_type.shape.dim:
                if dim.HasField("dim_param"):
                    dim.ClearField("dim_param")
            graph.value_info.append(copy)
    return [*body.node, *given]
