"""Runs ONNX's shape inference, but hides nodes that would crash it.

The inference is C++ code that reads beyond its arrays if a node does not follow its schema (onnx 1.23), which crashes
the process. Such nodes were found by running ONNX's node tests with changed attributes, inputs, outputs and types.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx.checker
import onnx.defs
import onnx.shape_inference
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper

from triune.graph import paged_attention
from triune.graph.core_ops import OPSET
from triune.graph.listed import too_long
from triune.graph.values import Values, nodes_of_model, subgraphs_of

# `Any`, since onnx's type stubs lack most attributes of a schema.
_schemas: Any = onnx.defs

_NOISE = re.compile(r"Inference error\(s\): |\[(Type|Shape)InferenceError\] |\(op_type:[^)]*\):? ?")

_MOST_BYTES = 1 << 10
"""Constants of more bytes are not given to the inference of one node, since only small ones affect shapes."""

_OTHER_TYPE = "has unsupported type"
"""A part of ONNX's error message for an operand whose type the operator does not accept."""

_MOST_DIMENSIONS = 64
"""The largest absolute value of an axis. For RMSNormalization, inference would loop over a larger axis until memory is
used up.
"""

_HIDDEN = "kept from inference: "
"""This prefix of a node's operator hides the node: inference skips operators that it does not know."""


def infer_shapes(model: ModelProto, **options: Any) -> ModelProto:
    """Do what `onnx.shape_inference.infer_shapes` does, with the same options.

    Raises:
        onnx.shape_inference.InferenceError: ONNX's inference fails, or a node would make it crash the process or never
        return.
    """
    paged_attention.register()
    if options.get("data_prop"):
        for found in too_long(model.graph):
            raise onnx.shape_inference.InferenceError(found)
    for node in nodes_of_model(model):
        if found := _problem(node):
            raise onnx.shape_inference.InferenceError(found)
    fragile = [node for node in nodes_of_model(model) if _is_fragile(node)]
    if not fragile:
        return onnx.shape_inference.infer_shapes(model, **options)
    for node in fragile:
        node.op_type = f"{_HIDDEN}{node.op_type}"
    inferred = model
    try:
        # Repeat inference: the types that it infers for one node may show that the next node is safe.
        while _restore_safe(model.graph, inferred.graph, None) or inferred is model:
            inferred = onnx.shape_inference.infer_shapes(model, **options)
    finally:
        _restore(fragile)
    _restore(nodes_of_model(inferred))
    return inferred


def infer_node(node: NodeProto, values: Values) -> None:
    """Run strict inference for one node of operator set `core_ops.OPSET`, to find errors; does nothing if a type is not
    known.

    Raises:
        onnx.shape_inference.InferenceError: the node's attributes, constants and shapes contradict each other.
    """
    if node.domain not in ("", "ai.onnx") or any(True for _ in subgraphs_of(node)):
        return
    if found := _problem(node):
        raise onnx.shape_inference.InferenceError(found)
    types = {name: values.type(name) for name in node.input if name}
    known = {name: kind for name, kind in types.items() if kind is not None}
    if len(known) < len(types) or not _schemas.has(node.op_type, OPSET, ""):
        return
    if node.op_type in _FRAGILE and not _FRAGILE[node.op_type](node, values):
        return
    tensors = {name: values.tensor(name) for name in types}
    data = {name: each for name, each in tensors.items() if each is not None and len(each.raw_data) <= _MOST_BYTES}
    found = _error_at(node, OPSET, known, data)
    version = OPSET
    while found is not None and _OTHER_TYPE in str(found):
        # Try an older operator set: inference may fail only because `version` does not allow the type. An older one may
        # allow it, and computes the same.
        version = _schemas.get_schema(node.op_type, version, "").since_version - 1
        if not version or not _schemas.has(node.op_type, version, ""):
            break
        older = _error_at(node, version, known, data)
        if older is None or _OTHER_TYPE not in str(older):
            return
    if found is not None:
        raise onnx.shape_inference.InferenceError(str(found)) from found


def _error_at(
    node: NodeProto, version: int, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto]
) -> Exception | None:
    """The error that inference raises for a node in an operator set; None if it raises none."""
    schema = _schemas.get_schema(node.op_type, version, "")
    imports = [helper.make_opsetid("", version)]
    try:
        onnx.shape_inference.infer_node_outputs(schema, node, dict(types), dict(data), opset_imports=imports)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return error
    return None


def plain_words(error: Exception) -> str:
    """The message of an error of ONNX's inference or checker in one line, without tags such as "[TypeInferenceError]"
    and "(op_type:Add, ...)".
    """
    return " ".join(_NOISE.sub("", str(error)).split()) or repr(error)


def _restore(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        node.op_type = node.op_type.removeprefix(_HIDDEN)


def _restore_safe(graph: GraphProto, inferred: GraphProto, outer: Values | None) -> bool:
    """Make nodes visible to inference again that were hidden from it, if the types in `inferred` prove them safe.
    Returns whether there were any.
    """
    values, is_new = Values(inferred, outer), False
    for node, known in zip(graph.node, inferred.node, strict=True):
        for inner, inner_inferred in zip(subgraphs_of(node), subgraphs_of(known), strict=True):
            is_new |= _restore_safe(inner, inner_inferred, values)
        if node.op_type.startswith(_HIDDEN):
            op_type = node.op_type.removeprefix(_HIDDEN)
            if _FRAGILE[op_type](node, values):
                node.op_type, is_new = op_type, True
    return is_new


def _problem(node: NodeProto) -> str | None:
    """A message if an attribute of a node is invalid (num_outputs of Split, batch_dims of GatherND, an axis); else
    None.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    stated = {each.name: each.i for each in node.attribute if not each.ref_attr_name}
    num_outputs, batch = stated.get("num_outputs", len(node.output)), stated.get("batch_dims", 0)
    if node.op_type == "Split" and num_outputs != len(node.output):
        return (
            f"Split '{_name_of(node)}' has {len(node.output)} outputs, and its attribute num_outputs is {num_outputs}"
        )
    if abs(axis := stated.get("axis", 0)) > _MOST_DIMENSIONS:
        return f"{node.op_type} '{_name_of(node)}' has axis {axis}, and no tensor has so many dimensions"
    if node.op_type == "GatherND" and batch < 0:
        return f"GatherND '{_name_of(node)}' has batch_dims {batch}: it is a number of dimensions, 0 or more"
    return None


def _is_fragile(node: NodeProto) -> bool:
    return node.op_type in _FRAGILE and (node.op_type != "LayerNormalization" or len(node.output) > 1)


def _is_axis_in_range(node: NodeProto, values: Values) -> bool:
    """Whether the axis of a LayerNormalization is known to be in range. Inference writes to memory from the axis on,
    unchecked.

    Raises:
        onnx.shape_inference.InferenceError: it is out of range.
    """
    rank = values.rank(node.input[0]) if node.input else None
    if rank is None:
        return False
    axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
    if not -rank <= axis < rank:
        raise onnx.shape_inference.InferenceError(
            f"LayerNormalization '{_name_of(node)}' has axis {axis}, and its input rank {rank}: axes are from "
            f"{-rank} to {rank - 1}"
        )
    return True


def _is_typed(node: NodeProto, values: Values) -> bool:
    """Whether the type of a node's first input is known. Inference reads the type without a check."""
    return bool(node.input) and values.type(node.input[0]) is not None


_FRAGILE: Mapping[str, Callable[[NodeProto, Values], bool]] = {
    "LayerNormalization": _is_axis_in_range,
    **dict.fromkeys(["EyeLike", "LabelEncoder", "RegexFullMatch", "TreeEnsemble"], _is_typed),
}
"""The operators with which inference may crash, and for each a function that returns whether a node is safe."""


def _name_of(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), "")
