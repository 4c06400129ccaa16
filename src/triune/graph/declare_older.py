"""Declare an older operator set for a model that means the same in it, since runtimes lack kernels of the newest
operator set.
"""

from typing import Final

import onnx.defs
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.by_values import RANDOM
from triune.graph.values import Values, subgraphs_of

OLDER: Final = 25
"""The newest operator set for whose DequantizeLinear and QuantizeLinear ONNX Runtime 1.32 has kernels."""

_OF_RANDOM: Final = 21
"""The newest operator set for whose random operators ONNX Runtime 1.32 has kernels."""

_OTHERWISE: Final = frozenset({"Mod", "SpaceToDepth"})
"""Operators that may compute another result in the newest operator set than in `OLDER`. Range is none of them: it has
only got an attribute, for fp16 and bf16.
"""


def declare_older(model: ModelProto) -> None:
    """Declare `OLDER` as the operator set of a model, if all its nodes mean the same in it.

    Since `OLDER`, operators have gained element types, and few have changed otherwise. A model with one of these few,
    or with an element type that the older operator does not accept, is not changed. A model that draws random
    numbers is declared as of `_OF_RANDOM`, if all its nodes mean the same in that set.

    Args:
        model: a normalized model, whose values have types; changed.
    """
    imported = next((each for each in model.opset_import if each.domain in ("", "ai.onnx")), None)
    if imported is None:
        return
    is_random = any(node.op_type in RANDOM for node in model.graph.node)
    for older in (_OF_RANDOM, OLDER) if is_random else (OLDER,):
        if imported.version > older and _is_same(model.graph, None, imported.version, older):
            imported.version = older


def _is_same(graph: GraphProto, outer: Values | None, version: int, older: int) -> bool:
    values = Values(graph, outer)
    return all(
        _is_same_node(node, values, version, older)
        and all(_is_same(inner, values, version, older) for inner in subgraphs_of(node))
        for node in graph.node
    )


def _is_same_node(node: NodeProto, values: Values, version: int, older: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return True
    new = onnx.defs.get_schema(node.op_type, version, "")
    if new.since_version <= older:
        return True
    if node.op_type in _OTHERWISE or not onnx.defs.has(node.op_type, older, ""):
        return False
    old = onnx.defs.get_schema(node.op_type, older, "")
    taken = {text for each in old.type_constraints for text in each.allowed_type_strs}
    kinds = [values.elem_type(name) for name in (*node.input, *node.output) if name]
    return {each.name for each in node.attribute} <= set(old.attributes) and all(
        kind and f"tensor({_TYPES.get(kind, '')})" in taken for kind in kinds
    )


_TYPES: Final = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()} | {
    onnx.TensorProto.FLOAT: "float",
    onnx.TensorProto.DOUBLE: "double",
}
"""Maps each TensorProto.DataType to the name that it has in the schemas of operators."""
