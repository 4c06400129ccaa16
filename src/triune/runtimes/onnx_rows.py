"""Whether the first dimension of an ONNX model's tensors is a batch."""

from collections.abc import Sequence

import onnx.checker
import onnx.shape_inference
from onnx import GraphProto, ModelProto, ValueInfoProto

from triune.core.tensors import Rows, TensorSpec
from triune.graph.by_values import by_values
from triune.graph.inference import infer_shapes
from triune.graph.weights import Large

NO_NAMES = frozenset({"", "?", "-1", "None"})
"""What exporters write for a dimension without a name: two of them need not have the same size."""

OVERRIDABLE_FROM_IR = 4
"""Before IR version 4 the file had to list its weights among the inputs, so being listed meant nothing."""


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
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    _copy_bare(model.graph, bare.graph, can_override=model.ir_version >= OVERRIDABLE_FROM_IR)
    try:
        inferred = infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError):
        # What ONNX cannot follow is not known.
        inferred = bare
    first = {value.name: _first_name(value) for value in (*inferred.graph.input, *inferred.graph.output)}
    wanted = [*required, *(value.name for value in model.graph.output)]
    return {first[name] for name in wanted}


def _copy_bare(graph: GraphProto, bare: GraphProto, *, can_override: bool) -> None:
    """A graph without large weights, without defaults, and without what it says of the shapes that it computes."""
    defaults = {value.name for value in graph.input} if can_override else set[str]()
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in defaults}
    bare.name = graph.name
    bare.node.extend(graph.node)
    bare.input.extend(value for value in graph.input if value.name not in constants)
    for value in bare.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value") and dims[0].dim_param in NO_NAMES:
            dims[0].dim_param = f"rows of {value.name}"
    large = Large()
    for tensor in constants.values():
        large.add(bare, tensor)
    bare.sparse_initializer.extend(graph.sparse_initializer)
    for value in graph.output:
        made = bare.output.add(name=value.name)
        made.type.tensor_type.elem_type = value.type.tensor_type.elem_type


def _first_name(value: ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_param if dims and dims[0].dim_param else f"rows of {value.name}"
