"""The shapes that a model declares. They may be wrong: ONNX Runtime only warns of one that it does not compute."""

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, TypeProto

from triune.graph.values import subgraphs_of


def free_negative_sizes(graph: GraphProto) -> None:
    """Make every dimension that is declared below 0 a free one. PaddlePaddle writes -1 for "any size"."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
    for node in graph.node:
        for inner in subgraphs_of(node):
            free_negative_sizes(inner)


def take_output_shapes(model: ModelProto) -> Mapping[str, TypeProto.Tensor]:
    """Take the declared shapes of the outputs out of the model: inference would keep those that it contradicts.

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
    """Give the outputs their declared shapes where nothing was inferred, and the declared names of free sizes."""
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
