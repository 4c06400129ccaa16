"""Infer the type and shape of every value."""

import onnx.checker
import onnx.shape_inference
from onnx import GraphProto, ModelProto, TypeProto

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.graph.inference import infer_shapes
from triune.graph.listed import too_long
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, subgraphs_of

MAX_ROUNDS = 64
"""The largest number of times that inference runs. It runs again because a rank that was found for one Reshape may
allow ONNX to infer the next.
"""


class Infer(GraphPass):
    """Given nodes. Result: `value_info` with the types and shapes of their outputs, as far as they can be inferred.

    Values of shapes that nodes compute (Shape, Gather, Concat) are followed, too. ONNX's strict mode is not used, since
    it fails on bodies of ONNX's own functions (a Range of vectors in AffineGrid, in onnx 1.23).
    """

    name = "infer"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Return a model with inferred types and shapes; `model` itself may be changed, too.

        Shapes that contradict each other raise no error here; compilers report them.

        Raises:
            InvalidArgumentError: ONNX's inference fails.
            UnsupportedError: a vector is too long for ONNX's inference.
        """
        try:
            _forget_constants(model.graph)
            for _ in range(MAX_ROUNDS):
                for found in too_long(model.graph):
                    raise UnsupportedError(found)
                model = infer_shapes(model, data_prop=True)
                if not _declare_ranks(model.graph, None):
                    break
            return model
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            raise InvalidArgumentError(
                f"the model's types do not fit together: {' '.join(str(error).split())}"
            ) from error


def _forget_constants(graph: GraphProto) -> None:
    """Remove the `value_info` of values that have become constants: ONNX would prefer it to the constant itself."""
    constants = {tensor.name for tensor in graph.initializer}
    infos = [info for info in graph.value_info if info.name not in constants]
    if len(infos) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(infos)
    for node in graph.node:
        for inner in subgraphs_of(node):
            _forget_constants(inner)


def _declare_ranks(graph: GraphProto, outer: Values | None) -> bool:
    """Declare the rank of each Reshape whose target shape is not constant: it is the target's length. ONNX does not
    infer it.

    Returns whether any rank was added.
    """
    values, is_new = Values(graph, outer), False
    infos = {info.name: info for info in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for inner in subgraphs_of(node):
            is_new |= _declare_ranks(inner, values)
        if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
            continue
        target, elem_type = values.static_shape(node.input[1]), values.elem_type(node.input[0])
        if target is None or len(target) != 1 or not elem_type or values.shape(node.output[0]) is not None:
            continue
        kind = TypeProto()
        kind.tensor_type.elem_type = elem_type
        kind.tensor_type.shape.SetInParent()
        for _ in range(target[0]):
            kind.tensor_type.shape.dim.add()
        info = infos.get(node.output[0]) or graph.value_info.add(name=node.output[0])
        info.type.CopyFrom(kind)
        is_new = True
    return is_new
