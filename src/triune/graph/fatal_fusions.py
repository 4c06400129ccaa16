"""Recognize models on which ONNX Runtime's optimizer would crash the process, before a session is made."""

from collections.abc import Iterator, Sequence

from onnx import ModelProto, NodeProto, TensorProto

from triune.graph.values import attributes_of, subgraphs_of

_FUSION = "MatmulTransposeFusion"
_FLOATS = frozenset([TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
_HALVES = frozenset([TensorProto.FLOAT16, TensorProto.BFLOAT16])


def fatal_fusions(model: ModelProto) -> Sequence[str]:
    """The names of ONNX Runtime's optimizers that may crash on `model`, which need not have its weights.

    MatmulTransposeFusion (1.32) crashes on `MatMul(Cast(Transpose(x)), w)` where the Transpose moves the first of three
    or more dimensions ([1, 0, 2]). ONNX Runtime may have inserted the Cast itself, for an operand in fp16, in which it
    has no product on the CPU. Other optimizers may bring the three nodes together; none of them moves a first dimension
    that no Transpose of the model moves.
    """
    is_moved, has_cast, has_product = False, _has_halves(model), False
    for node in _nodes(model):
        match node.op_type:
            case "Transpose":
                is_moved |= tuple(attributes_of(node).get("perm", ()))[:1] != (0,)
            case "MatMul" | "FusedMatMul":
                has_product = True
            case "Cast":
                has_cast |= attributes_of(node).get("to") in _FLOATS
            case "CastLike":
                has_cast = True
            case _:
                pass
    return [_FUSION] if is_moved and has_cast and has_product else []


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for body in (model.graph, *model.functions):
        yield from _nodes_of(body.node)


def _nodes_of(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for inner in subgraphs_of(node):
            yield from _nodes_of(inner.node)


def _has_halves(model: ModelProto) -> bool:
    """Whether an input, an initializer or a constant is of fp16 or bf16.

    Nodes that compute in these read one, or a Cast to it.
    """
    graph = model.graph
    constants = (attribute.t for node in _nodes(model) for attribute in node.attribute if attribute.HasField("t"))
    return (
        any(value.type.tensor_type.elem_type in _HALVES for value in graph.input)
        or any(tensor.data_type in _HALVES for tensor in graph.initializer)
        or any(tensor.data_type in _HALVES for tensor in constants)
    )
