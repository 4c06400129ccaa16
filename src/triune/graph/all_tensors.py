"""Find all tensors of a model: in graphs, subgraphs, functions and attributes, dense and sparse."""

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model, the initializers of its main graph first."""
    yield from model.graph.initializer
    yield from tensors_within(model)


def tensors_within(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model except the initializers of its main graph."""
    yield from _of_sparse(model.graph.sparse_initializer)
    for node in model.graph.node:
        yield from _of_attributes(node.attribute)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto)
        for node in function.node:
            yield from _of_attributes(node.attribute)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _of_sparse(graph.sparse_initializer)
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from _of_sparse([attribute.sparse_tensor])
        yield from _of_sparse(attribute.sparse_tensors)
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def _of_sparse(tensors: Iterable[SparseTensorProto]) -> Iterator[TensorProto]:
    for tensor in tensors:
        if tensor.HasField("values"):
            yield tensor.values
        if tensor.HasField("indices"):
            yield tensor.indices
