"""Shape inference that ignores the shapes that a model declares, since these may be wrong."""

from onnx import GraphProto, ModelProto, ValueInfoProto

from triune.graph.defaults import OVERRIDABLE_FROM_IR
from triune.graph.inference_apart import try_infer_shapes
from triune.graph.values import subgraphs_of
from triune.graph.weights import Large

NO_NAMES = frozenset({"", "?", "-1", "None"})
"""Names that exporters give to dimensions without a name. Two dimensions of such a name may differ in size."""


def infer_bare(model: ModelProto, *, is_strict: bool = False) -> ModelProto:
    """Make a copy of a model with the shapes that ONNX infers instead of those that the model declares.

    Large weights and defaults of inputs are left out of the copy. If ONNX's inference fails, no shapes are inferred.
    The first dimension of an input gets a name if it has none.

    Args:
        model: not changed.
        is_strict: whether to ignore the shapes that subgraphs (of If, Loop and Scan) declare, too.

    Raises:
        InternalError, OSError: see `try_infer_shapes`.
    """
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    _copy(model.graph, bare.graph, can_override=model.ir_version >= OVERRIDABLE_FROM_IR)
    for value in bare.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value") and dims[0].dim_param in NO_NAMES:
            dims[0].dim_param = own_name(value)
    if is_strict:
        _forget_shapes(bare.graph)
    return try_infer_shapes(bare, has_data=True) or bare


def own_name(value: ValueInfoProto) -> str:
    """The name that `infer_bare` gives the first dimension of an input if it has none."""
    return f"rows of {value.name}"


def _forget_shapes(graph: GraphProto) -> None:
    for node in graph.node:
        for inner in subgraphs_of(node):
            del inner.value_info[:]
            for value in (*inner.input, *inner.output):
                # Keep the shape () of a Loop's iteration number and condition, since it cannot be inferred from the
                # nodes.
                if len(value.type.tensor_type.shape.dim):
                    value.type.tensor_type.ClearField("shape")
            _forget_shapes(inner)


def _copy(graph: GraphProto, bare: GraphProto, *, can_override: bool) -> None:
    defaults = {value.name for value in graph.input} if can_override else set[str]()
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in defaults}
    bare.name = graph.name
    bare.node.extend(graph.node)
    bare.input.extend(value for value in graph.input if value.name not in constants)
    large = Large()
    for tensor in constants.values():
        large.add(bare, tensor)
    bare.sparse_initializer.extend(graph.sparse_initializer)
    for value in graph.output:
        made = bare.output.add(name=value.name)
        made.type.tensor_type.elem_type = value.type.tensor_type.elem_type
