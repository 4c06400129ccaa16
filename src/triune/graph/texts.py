"""Check that the names in a model are UTF-8. Protobuf accepts other bytes too, and returns `bytes` instead of `str`."""

from collections.abc import Iterable, Iterator
from itertools import chain

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from triune.graph.values import subgraphs_of


def broken_text(model: ModelProto) -> str:
    """A message with the first name in a model that is not UTF-8; "" if all are.

    Doc strings and the declared types of inner values are not checked, since no code reads them.
    """
    imports = chain(model.opset_import, *(each.opset_import for each in model.functions))
    found = chain(
        (each.domain for each in imports),
        _of_graph(model.graph),
        *(
            chain(
                (each.name, each.domain, each.overload), each.input, each.output, each.attribute, _of_nodes(each.node)
            )
            for each in model.functions
        ),
    )
    return next((f"the name {text[:64]!r} is not UTF-8" for text in found if isinstance(text, bytes)), "")


def _of_graph(graph: GraphProto) -> Iterator[str | bytes]:
    yield graph.name
    yield from _of_values((*graph.input, *graph.output))
    yield from _of_tensors(graph.initializer)
    yield from _of_tensors(each.values for each in graph.sparse_initializer)
    yield from _of_nodes(graph.node)


def _of_values(values: Iterable[ValueInfoProto]) -> Iterator[str | bytes]:
    for value in values:
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _of_tensors(tensors: Iterable[TensorProto]) -> Iterator[str | bytes]:
    for tensor in tensors:
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[str | bytes]:
    for node in nodes:
        yield from (node.op_type, node.domain, node.name, node.overload)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield attribute.name
            if attribute.ref_attr_name:
                yield attribute.ref_attr_name
            if attribute.HasField("t"):
                yield from _of_tensors([attribute.t])
        for graph in subgraphs_of(node):
            yield from _of_graph(graph)
