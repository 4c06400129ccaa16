"""Upgrade models to one version of ONNX's operator set. For each operator whose definition has changed there is a
rule.
"""

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto

from triune.core.errors import InvalidArgumentError, UnsupportedError, reworded
from triune.graph.builder import Builder
from triune.graph.core_ops import OPSET
from triune.graph.decompose.context import Context
from triune.graph.names import Names
from triune.graph.passes.infer import Infer
from triune.graph.passes.run import GraphPass
from triune.graph.passes.upgrade import adopted, attributes, broadcasts, inputs, norms, resize, scans
from triune.graph.passes.upgrade.rule import Rule, rewrite
from triune.graph.values import Values, attributes_of, names_read, subgraphs_of

RULES: Mapping[str, tuple[int, Rule]] = {
    **attributes.TABLE,
    **broadcasts.TABLE,
    **inputs.TABLE,
    **norms.TABLE,
    **resize.TABLE,
    **scans.TABLE,
}
"""For each operator the first operator set in which it has today's definition, and the rule that upgrades a node of an
older set.

An operator that is not listed has the same definition in all operator sets.
"""

_IN_PLACE = 6
"""Before this operator set, the attribute `consumed_inputs` says which inputs may be overwritten."""

_FIRST_IR_OF_PLAIN_INITIALIZERS = 4
"""Before this version of ONNX's file format, an initializer had to be an input too."""


class Upgrade(GraphPass):
    """Given a model of an older operator set. Result: the same model of operator set `OPSET`.

    ONNX's own version converter changes what some operators compute (Upsample, Hardmax), loses a model's functions, and
    fails if types are not known: docs/decisions/0005. Functions keep their operator sets until `Inline` replaces them.
    """

    name = "upgrade"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Upgrade the nodes of `model`, in place, to operator set `OPSET`.

        Raises:
            UnsupportedError: no operators of `OPSET` compute what a node computes.
            InvalidArgumentError: the model is of a newer operator set, or a node is invalid.
        """
        found = next((each for each in model.opset_import if each.domain in ("", "ai.onnx")), None)
        if found is None:
            model.opset_import.append(OperatorSetIdProto(domain="", version=OPSET))
            return model
        version = found.version
        if version > OPSET:
            raise InvalidArgumentError(
                f"the model is of operator set {version}; the newest that is known here is {OPSET}: export it again "
                "for an older one, or install a newer Triune"
            )
        if _has_old_nodes(model.graph, version):
            model = Infer()(model)
            _upgrade(model.graph, version, None, Names(model.graph))
        for each in model.opset_import:
            if each.domain in ("", "ai.onnx"):
                each.version = OPSET
        model.ir_version = max(model.ir_version, _FIRST_IR_OF_PLAIN_INITIALIZERS)
        return model


def _has_old_nodes(graph: GraphProto, version: int) -> bool:
    return any(
        _rule(node, version) is not None or any(_has_old_nodes(inner, version) for inner in subgraphs_of(node))
        for node in graph.node
    )


def _rule(node: NodeProto, version: int) -> Rule | None:
    if node.domain == adopted.ADOPTED:
        return adopted.TABLE[node.op_type]
    if node.domain not in ("", "ai.onnx"):
        return None
    first, rule = RULES.get(node.op_type, (0, _without_consumed_inputs))
    if version < first:
        return rule
    return (
        _without_consumed_inputs
        if version < _IN_PLACE and any(each.name == "consumed_inputs" for each in node.attribute)
        else None
    )


def _without_consumed_inputs(c: Context) -> None:
    rewrite(c, without=["consumed_inputs"])


def _upgrade(graph: GraphProto, version: int, outer: Values | None, names: Names) -> None:
    values = Values(graph, outer)
    read = names_read(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _upgrade(inner, version, values, names)
        rule = _rule(node, version)
        if rule is None:
            nodes.append(node)
            continue
        name = node.name or next(filter(None, node.output), "")
        build = Builder(names.prefix(f"{name}/{node.op_type}"))
        try:
            rule(Context(node, values, attributes_of(node), build, read, graph))
        except (InvalidArgumentError, UnsupportedError) as error:
            raise reworded(error, f"{node.op_type} '{name}' of operator set {version}: {error}") from error
        nodes.extend(build.nodes)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
