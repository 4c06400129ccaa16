"""Compute each subexpression once, and store each constant once."""

import hashlib
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from triune.graph.by_values import RANDOM
from triune.graph.editing import Edit, edit_graphs
from triune.graph.names import rename_values
from triune.graph.passes.run import GraphPass
from triune.graph.values import subgraphs_of
from triune.graph.weight_files import data_of, num_bytes

_DOMAINS = frozenset(["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
"""The domains whose operators give equal results for equal operands, except operators that draw random numbers."""


class Common(GraphPass):
    """Given several nodes with the same operator, attributes and operands, or several constants with the same elements.
    Result: one of them, whose result all readers read.

    These stay: nodes that draw random numbers, that have subgraphs, or whose domain is not in `_DOMAINS`; and two nodes
    that both give an output of the graph.
    """

    name = "common"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace equal nodes and equal constants in `model`, in place, by one of them."""
        _share_constants(model.graph)
        edit_graphs(model, _share_nodes)
        return model


def _share_nodes(edit: Edit) -> None:
    found: dict[bytes, NodeProto] = {}
    for node in edit.nodes:
        if node.domain not in _DOMAINS or node.op_type in RANDOM or "Dropout" in node.op_type:
            continue
        if any(True for _ in subgraphs_of(node)) or not any(node.output):
            continue
        first = found.setdefault(_key(node), node)
        if first is node:
            continue
        pairs = [(old, new) for old, new in zip(node.output, first.output, strict=True) if old]
        if len(pairs) == 1:
            edit.bypass(node, pairs[0][1])
        elif not any(edit.is_kept(old) for old, _ in pairs):
            for old, new in pairs:
                edit.forward(old, new)
            edit.drop(node)


def _key(node: NodeProto) -> bytes:
    """A node without its names, as bytes: nodes of equal bytes compute the same."""
    copy = NodeProto(op_type=node.op_type, domain=node.domain, overload=node.overload)
    copy.input.extend(node.input)
    copy.output.extend("given" if name else "" for name in node.output)
    copy.attribute.extend(sorted(node.attribute, key=lambda each: each.name))
    for attribute in copy.attribute:
        attribute.ClearField("doc_string")
        if attribute.HasField("t"):
            attribute.t.ClearField("name")
    return copy.SerializeToString(deterministic=True)


def _share_constants(graph: GraphProto) -> None:
    kept = {value.name for value in (*graph.input, *graph.output)}
    alike: dict[tuple[object, ...], list[TensorProto]] = {}
    for tensor in graph.initializer:
        if tensor.name not in kept and tensor.data_type != TensorProto.STRING:
            alike.setdefault((tensor.data_type, tuple(tensor.dims), num_bytes(tensor)), []).append(tensor)
    renamed: dict[str, str] = {}
    for tensors in alike.values():
        first: dict[bytes, str] = {}
        for tensor in tensors if len(tensors) > 1 else ():
            name = first.setdefault(_digest(tensor), tensor.name)
            if name != tensor.name:
                renamed[tensor.name] = name
    if renamed:
        rename_values(graph, renamed)
        _remove(graph, renamed)


def _digest(tensor: TensorProto) -> bytes:
    if tensor.data_location == TensorProto.EXTERNAL:
        return hashlib.sha256(data_of(tensor).tobytes()).digest()
    copy = TensorProto.FromString(tensor.SerializeToString())
    for field in ("name", "doc_string"):
        copy.ClearField(field)
    data = copy.raw_data or copy.SerializeToString(deterministic=True)
    return hashlib.sha256(data).digest()


def _remove(graph: GraphProto, names: Iterable[str]) -> None:
    unread = set(names)
    kept = [TensorProto.FromString(each.SerializeToString()) for each in graph.initializer if each.name not in unread]
    del graph.initializer[:]
    graph.initializer.extend(kept)
