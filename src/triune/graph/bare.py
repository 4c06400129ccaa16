"""A model without what it says of itself: for inference that is to find out what is so."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx.checker
import onnx.shape_inference
from onnx import GraphProto, ModelProto, NodeProto, TensorShapeProto, ValueInfoProto, helper, numpy_helper

from triune.graph.faults import MICROSOFT
from triune.graph.inference import infer_shapes
from triune.graph.values import subgraphs_of
from triune.graph.weights import Large

NO_NAMES = frozenset({"", "?", "-1", "None"})
"""What exporters write for a dimension without a name: two of them need not have the same size."""

OVERRIDABLE_FROM_IR = 4
"""Before IR version 4 the file had to list its weights among the inputs, so being listed meant nothing."""


_LIKE_THE_FIRST = {
    "BiasGelu": (0,),
    "FastGelu": (0,),
    "GroupQueryAttention": (0,),
    "QuickGelu": (0,),
    "SimplifiedLayerNormalization": (0,),
    "SkipLayerNormalization": (0, 3),
    "SkipSimplifiedLayerNormalization": (0, 3),
}
"""Operators of ONNX Runtime's own, and the outputs of theirs that have the shape of their first input.

Of GroupQueryAttention with queries, keys and values in one, the last size is another number.
"""


def infer_bare(model: ModelProto, *, is_strict: bool = False) -> ModelProto:
    """What ONNX infers of a model without large weights, defaults, and what it states of the shapes that it computes.

    Where ONNX gives up, nothing is inferred.

    Args:
        model: not changed.
        is_strict: of the graphs within nodes, too, nothing is believed that they state of shapes; each dimension of an
            input that has no name gets one of its own, where else the first dimensions do; and shapes pass ONNX
            Runtime's own operators, which ONNX does not know: what these nodes give has another name than theirs then.
    """
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    _copy(model.graph, bare.graph, can_override=model.ir_version >= OVERRIDABLE_FROM_IR)
    for dim, name in _unnamed(bare.graph.input, names_all=is_strict):
        dim.dim_param = name
    if is_strict:
        _forget_shapes(bare.graph)
        _stand_in(bare.graph)
    try:
        return infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError):
        # What ONNX cannot follow is not known.
        return bare


def own_name(value: ValueInfoProto) -> str:
    """The name that the first dimension of an input gets where it has none."""
    return f"rows of {value.name}"


def _unnamed(inputs: Iterable[ValueInfoProto], *, names_all: bool) -> Iterator[tuple[TensorShapeProto.Dimension, str]]:
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if (axis and not names_all) or dim.HasField("dim_value") or dim.dim_param not in NO_NAMES:
                continue
            yield dim, own_name(value) if not axis else f"size {axis} of {value.name}"


def _forget_shapes(graph: GraphProto) -> None:
    for node in graph.node:
        for inner in subgraphs_of(node):
            del inner.value_info[:]
            for value in (*inner.input, *inner.output):
                # Inference needs the shapes of a Loop's step and condition, scalars: no operator tells them.
                if len(value.type.tensor_type.shape.dim):
                    value.type.tensor_type.ClearField("shape")
            _forget_shapes(inner)


def _stand_in(graph: GraphProto) -> None:
    """Beside each node of ONNX Runtime's own, a node of ONNX's that gives a value of the same type and shape."""
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _stand_in(inner)
        nodes.append(node)
        node.name = node.name or next(filter(None, node.output), "")
        if node.domain == MICROSOFT and node.op_type == "MatMulNBits" and node.input:
            nodes += _with_last_size(
                node.input[0], next(each.i for each in node.attribute if each.name == "N"), node.output[0]
            )
            node.output[0] = f"{node.output[0]}/of {node.op_type}"
        for place in _LIKE_THE_FIRST.get(node.op_type, ()) if node.input else ():
            if place < len(node.output) and node.output[place]:
                nodes.append(helper.make_node("Identity", [node.input[0]], [node.output[place]]))
                node.output[place] = f"{node.output[place]}/of {node.op_type}"
    if len(nodes) > len(graph.node):
        copies = GraphProto(node=nodes)
        del graph.node[:]
        graph.node.extend(copies.node)


def _with_last_size(given: str, size: int, result: str) -> list[NodeProto]:
    """Nodes that give a value of the type of another one, and of its shape but for the last size."""
    last = numpy_helper.from_array(np.zeros(size, np.int64), f"{result}/size")
    return [
        helper.make_node("ArgMax", [given], [f"{result}/row"], axis=-1),
        helper.make_node("Constant", [], [last.name], value=last),
        helper.make_node("Mul", [f"{result}/row", last.name], [f"{result}/any"]),
        helper.make_node("CastLike", [f"{result}/any", given], [result]),
    ]


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
