"""Find out whether the first dimension of an ONNX model's tensors is a batch dimension."""

from collections.abc import Sequence

from onnx import ModelProto, ValueInfoProto

from triune.core.tensors import Rows, TensorSpec
from triune.graph.bare import NO_NAMES, infer_bare, own_name
from triune.graph.by_values import by_values


def rows_of(model: ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Rows:
    """Whether the first dimension of every required input and output is the same batch dimension.

    If no shape depends on values, the names of dimensions in the file decide, unless ONNX's shape inference contradicts
    them. If the file has no names, the inferred names decide.

    Args:
        model: the model, which is not changed.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
    """
    required = [spec for spec in inputs if not spec.is_optional]
    if not required or any(not spec.shape or spec.shape[0] != -1 for spec in (*required, *outputs)):
        return Rows.UNKNOWN
    decided = by_values(model).shapes
    bare = infer_bare(model)
    if _is_other(bare):
        return Rows.OTHER
    names = {spec.axes[0] for spec in (*required, *outputs)}
    if len(names) == 1 and None not in names and not decided:
        return Rows.SAME
    if len(_inferred_names(bare, [spec.name for spec in required])) == 1:
        return Rows.SAME
    return Rows.BY_VALUES if decided else Rows.UNKNOWN


def _is_other(inferred: ModelProto) -> bool:
    """Whether ONNX infers the first dimension of some output to be a number, or equal to a dimension of an input that
    is not its first.
    """
    shapes = [value.type.tensor_type.shape.dim for value in inferred.graph.input]
    firsts = {dims[0].dim_param for dims in shapes if dims}
    others = {dim.dim_param for dims in shapes for dim in dims[1:]} - firsts - NO_NAMES
    outputs = [value.type.tensor_type.shape.dim for value in inferred.graph.output]
    return any(dims[0].HasField("dim_value") or dims[0].dim_param in others for dims in outputs if dims)


def _inferred_names(inferred: ModelProto, required: Sequence[str]) -> set[str]:
    """The inferred names of the first dimensions of inputs and outputs. A dimension without a name gets a unique
    one.
    """
    first = {value.name: _first_name(value) for value in (*inferred.graph.input, *inferred.graph.output)}
    wanted = [*required, *(value.name for value in inferred.graph.output)]
    return {first[name] for name in wanted}


def _first_name(value: ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_param if dims and dims[0].dim_param else own_name(value)
