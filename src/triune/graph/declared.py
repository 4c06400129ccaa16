"""Handle the shapes that a model declares for its values.

They may be wrong: ONNX Runtime only warns if a shape differs from the real one.
"""

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto

from triune.graph.passes.infer import Infer
from triune.graph.values import Values, subgraphs_of


def free_negative_sizes(graph: GraphProto) -> None:
    """Make dimensions with a negative size free ones. PaddlePaddle writes -1 for "any size"."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
    for node in graph.node:
        for inner in subgraphs_of(node):
            free_negative_sizes(inner)


def take_output_shapes(model: ModelProto) -> Mapping[str, TypeProto.Tensor]:
    """Remove the declared shapes of a model's outputs, and return them. Shape inference would keep them even if they
    are wrong.

    Returns:
        the types of the outputs that are tensors, with their shapes.
    """
    declared: dict[str, TypeProto.Tensor] = {}
    for value in model.graph.output:
        if value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.HasField("shape"):
            declared[value.name] = TypeProto.Tensor.FromString(value.type.tensor_type.SerializeToString())
            value.type.tensor_type.ClearField("shape")
    return declared


def give_output_shapes(model: ModelProto, declared: Mapping[str, TypeProto.Tensor]) -> None:
    """Set the declared shape of each output for which none was inferred.

    Of outputs with an inferred shape, only free sizes get their declared names.
    """
    for value in model.graph.output:
        if value.name not in declared:
            continue
        tensor, shape = value.type.tensor_type, declared[value.name].shape
        if not tensor.HasField("shape"):
            tensor.shape.CopyFrom(shape)
        elif len(tensor.shape.dim) == len(shape.dim):
            for dim, known in zip(tensor.shape.dim, shape.dim, strict=True):
                if not dim.HasField("dim_value") and known.dim_param:
                    dim.dim_param = known.dim_param


def infer_anew(model: ModelProto) -> ModelProto:
    """Infer the types and shapes of inner values anew, instead of those that the model declares.

    A declared type is used if none can be inferred (after an operator that ONNX does not know). If any declared size
    differs from the inferred one, no declared size is used, since the model was exported for other inputs.
    """
    declared = [_take(graph, node) for graph, node, _ in _graphs(model.graph)]
    if not any(declared):
        return model
    model = Infer()(model)
    graphs = list(_graphs(model.graph))
    is_right = all(
        _agrees(types, graph, node, outer) for types, (graph, node, outer) in zip(declared, graphs, strict=True)
    )
    for types, (graph, _, _) in zip(declared, graphs, strict=True):
        _give(types, graph, with_sizes=is_right)
    return model


def _graphs(
    graph: GraphProto, node: NodeProto | None = None, outer: Values | None = None
) -> Iterator[tuple[GraphProto, NodeProto | None, Values | None]]:
    """Yield a graph and its subgraphs.

    With each subgraph come the node to which it belongs, and the values of the graph around that node.
    """
    yield graph, node, outer
    values = Values(graph, outer)
    for each in graph.node:
        for inner in subgraphs_of(each):
            yield from _graphs(inner, each, values)


def _take(graph: GraphProto, node: NodeProto | None) -> dict[str, TypeProto]:
    """Remove `value_info` from a graph; returns the types by name.

    In a subgraph (`node` given), also remove and return the shapes of inputs and outputs, except those of scalars.
    """
    types = {info.name: _copy(info.type) for info in graph.value_info}
    del graph.value_info[:]
    for value in () if node is None else (*graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            types[value.name] = _copy(value.type)
            # Keep the shape () of a Loop's iteration number and condition, since it cannot be inferred from the nodes.
            if len(value.type.tensor_type.shape.dim):
                value.type.tensor_type.ClearField("shape")
    return types


def _agrees(types: Mapping[str, TypeProto], graph: GraphProto, node: NodeProto | None, outer: Values | None) -> bool:
    """Whether all declared sizes equal the inferred ones, and the shape of each state of a Loop equals that of its
    initial value.
    """
    values = Values(graph)
    inferred = {name: values.type(name) for name in types}
    if node is not None and node.op_type == "Loop" and outer is not None:
        states = zip(graph.input[2:], node.input[2:], strict=False)
        inferred.update((state.name, outer.type(first)) for state, first in states)
    return all(_fits(types[name], kind) for name, kind in inferred.items() if name in types and kind is not None)


def _fits(declared: TypeProto, inferred: TypeProto) -> bool:
    if not (declared.tensor_type.HasField("shape") and inferred.tensor_type.HasField("shape")):
        return True
    pairs = list(zip(declared.tensor_type.shape.dim, inferred.tensor_type.shape.dim, strict=False))
    is_same_rank = len(declared.tensor_type.shape.dim) == len(inferred.tensor_type.shape.dim)
    # If the inferred size is the name of an input's free dimension, a declared number is wrong.
    return is_same_rank and all(
        not size.HasField("dim_value") or _is_unknown(found) or size.dim_value == found.dim_value
        for size, found in pairs
    )


def _is_unknown(dim: TensorShapeProto.Dimension) -> bool:
    """Whether inference found neither a number nor the name of an input's size. Names that ONNX makes begin with
    "unk__".
    """
    return not dim.HasField("dim_value") and (not dim.dim_param or dim.dim_param.startswith("unk__"))


def _give(types: Mapping[str, TypeProto], graph: GraphProto, *, with_sizes: bool) -> None:
    """Set the declared types of values for which none was inferred: the rank, and if `with_sizes` also the sizes."""
    known: dict[str, ValueInfoProto] = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name for tensor in graph.initializer}
    for name, declared in types.items():
        if name in constants:
            continue
        value = known[name] if name in known else graph.value_info.add(name=name)
        has_shape = declared.tensor_type.HasField("shape")
        is_new = True
        if not value.type.WhichOneof("value"):
            value.type.CopyFrom(declared)
        elif has_shape and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(declared.tensor_type.shape)
        else:
            is_new = False
        if not has_shape:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, declared.tensor_type.shape.dim, strict=False):
            if with_sizes and size.HasField("dim_value") and _is_unknown(dim):
                dim.dim_value = size.dim_value
            elif is_new and not with_sizes:
                dim.Clear()


def _copy(kind: TypeProto) -> TypeProto:
    return TypeProto.FromString(kind.SerializeToString())
