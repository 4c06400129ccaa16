"""Find out, before a session is created, whether ONNX Runtime's optimizer would crash the process on a model."""

from collections.abc import Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from triune.graph.names import Names
from triune.graph.values import attributes_of, nodes_of_model, subgraphs_of

_FUSION = "MatmulTransposeFusion"
_PRODUCTS = frozenset(["MatMul", "FusedMatMul"])
_FLOATS = frozenset([TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
_HALVES = frozenset([TensorProto.FLOAT16, TensorProto.BFLOAT16])


def fatal_fusions(model: ModelProto) -> Sequence[str]:
    """The names of ONNX Runtime's optimizers that may crash on `model`, which need not have its weights.

    MatmulTransposeFusion (1.32) crashes on `MatMul(Cast(Transpose(x)), w)` if the Transpose moves the first of three or
    more dimensions, as [1, 0, 2] does. ONNX Runtime may have inserted the Cast itself, since it has no MatMul of fp16
    on the CPU. Other optimizers may bring the three nodes together, but a Transpose that moves the first dimension must
    be in the model itself.
    """
    is_moved, has_cast, has_product = False, _has_halves(model), False
    for node in nodes_of_model(model):
        match node.op_type:
            case "Transpose":
                is_moved |= tuple(attributes_of(node).get("perm", ()))[:1] != (0,)
            case op if op in _PRODUCTS:
                has_product = True
            case "Cast":
                has_cast |= attributes_of(node).get("to") in _FLOATS
            case "CastLike":
                has_cast = True
            case _:
                pass
    return [_FUSION] if is_moved and has_cast and has_product else []


def without_fatal_fusions(model: ModelProto) -> None:
    """Change a model so that ONNX Runtime's optimizer does not crash on it, even in a session with default options.

    A Tile with repeats of 1 is inserted after each Transpose that moves the first dimension and that a MatMul may come
    to read. It changes nothing, and accepts every element type. Optimizers would remove an Identity, or a Reshape to
    the same shape, but not a Tile.
    """
    if not fatal_fusions(model):
        return
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes_of_model(model):
        for name in node.input:
            readers.setdefault(name, []).append(node)
    names = Names(model.graph)
    _insert_tiles(model.graph, readers, names)


def _insert_tiles(graph: GraphProto, readers: Mapping[str, Sequence[NodeProto]], names: Names) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in subgraphs_of(node):
            _insert_tiles(inner, readers, names)
        nodes.append(node)
        permutation = tuple(attributes_of(node).get("perm", ())) if node.op_type == "Transpose" else ()
        if len(permutation) < 3 or permutation[0] == 0 or not _reaches_a_product(node.output[0], readers):
            continue
        name = node.output[0]
        node.output[0] = names.value(f"{name}/transposed")
        times = names.value(f"{name}/times")
        nodes.append(helper.make_node("Constant", [], [times], value_ints=[1] * len(permutation)))
        nodes.append(helper.make_node("Tile", [node.output[0], times], [name], name=f"{name}/tile"))
    del graph.node[:]
    graph.node.extend(nodes)


def _reaches_a_product(name: str, readers: Mapping[str, Sequence[NodeProto]]) -> bool:
    """Whether a MatMul reads a value, directly or through other nodes, since optimizers may move a Transpose past
    these.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for node in readers.get(waiting.pop(), ()):
            if node.op_type in _PRODUCTS:
                return True
            waiting += [each for each in node.output if each not in seen]
            seen.update(node.output)
    return False


def _has_halves(model: ModelProto) -> bool:
    """Whether an input, an initializer or a constant has type fp16 or bf16.

    If none has, only a Cast can give these types.
    """
    graph = model.graph
    constants = (
        attribute.t for node in nodes_of_model(model) for attribute in node.attribute if attribute.HasField("t")
    )
    return (
        any(value.type.tensor_type.elem_type in _HALVES for value in graph.input)
        or any(tensor.data_type in _HALVES for tensor in graph.initializer)
        or any(tensor.data_type in _HALVES for tensor in constants)
    )
