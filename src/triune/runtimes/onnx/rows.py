"""Whether the first dimension of an ONNX model's tensors is a batch."""

from collections.abc import Sequence

from onnx import ModelProto, ValueInfoProto

from triune.core.tensors import Rows, TensorSpec
from triune.graph.bare import infer_bare, own_name
from triune.graph.by_values import by_values


def rows_of(model: ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Rows:
    """What is known of the first dimension of every required input and every output.

    The file's names of it are believed where no shape depends on values; else what ONNX infers of the outputs.

    Args:
        model: not changed.
        inputs: of its graph.
        outputs: of its graph.
    """
    required = [spec for spec in inputs if not spec.is_optional]
    if not required or any(not spec.shape or spec.shape[0] != -1 for spec in (*required, *outputs)):
        return Rows.UNKNOWN
    decided = by_values(model).shapes
    names = {spec.axes[0] for spec in (*required, *outputs)}
    if len(names) == 1 and None not in names and not decided:
        return Rows.SAME
    if len(_inferred_names(model, [spec.name for spec in required])) == 1:
        return Rows.SAME
    return Rows.BY_VALUES if decided else Rows.UNKNOWN


def _inferred_names(model: ModelProto, required: Sequence[str]) -> set[str]:
    """The names of the first dimensions of inputs and outputs, as ONNX infers them; without a name each has its own."""
    inferred = infer_bare(model)
    first = {value.name: _first_name(value) for value in (*inferred.graph.input, *inferred.graph.output)}
    wanted = [*required, *(value.name for value in model.graph.output)]
    return {first[name] for name in wanted}


def _first_name(value: ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_param if dims and dims[0].dim_param else own_name(value)
