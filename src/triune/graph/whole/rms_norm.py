"""Root mean square normalization, kept whole."""

from collections.abc import Iterator

from onnx import NodeProto, TensorProto, helper, numpy_helper

from triune.graph.ane.index import Index
from triune.graph.values import attributes_of
from triune.graph.whole.outline import RESULT, Outline, renamed

# Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019): x / sqrt(mean(x^2) + eps) * scale.


def find_rms_norms(index: Index) -> Iterator[Outline]:
    """Given x * (mean(x * x) + eps)^-0.5 * scale over the last axis, as exporters write it. Result: `rms_norm`.

    The norm may be computed in fp32, between casts.
    """
    for node in index.graph.node:
        if node.op_type == "Mul":
            found = _of(index, node)
            if found is not None:
                yield found


def _of(index: Index, end: NodeProto) -> Outline | None:
    for place in (0, 1):
        scale = end.input[1 - place]
        dims = index.dims(scale)
        if not index.is_constant(scale) or dims is None or not 1 <= len(dims) <= 3:
            continue
        narrowed = _cast(index, end.input[place])
        parts = _normed(index, end.input[place] if narrowed is None else narrowed.input[0])
        if parts is None:
            continue
        x, eps, nodes = parts
        if narrowed is not None:
            nodes = [*nodes, narrowed]
        if narrowed is not None:
            half = _half_of(index, x)
            if half is None:
                continue
            nodes = [helper.make_node("Cast", [half], [x], to=TensorProto.FLOAT), *nodes]
            x = half
        # What the rest of the body reads but x and the scale are scalars and axes.
        operands = {"input": x, "scale": scale}
        names = {value: name for name, value in operands.items()} | {end.output[0]: RESULT}
        body = [*_constants(index, nodes, set(names)), *renamed([*nodes, end], names)]
        return Outline("rms_norm", end, operands, body, {"axes": [-1], "eps": eps})
    return None


def _cast(index: Index, name: str) -> NodeProto | None:
    """The Cast between fp16 and fp32 that makes a value: within a norm, fp16 would not hold the squares."""
    cast = index.maker(name, "Cast")
    return cast if cast is not None and index.is_float(cast.input[0]) else None


def _half_of(index: Index, name: str) -> str | None:
    """The value in fp16 of which `name` is made, or that is made of it."""
    cast = _cast(index, name)
    if cast is not None:
        return cast.input[0]
    casts = [node.output[0] for node in index.readers(name) if node.op_type == "Cast"]
    return next((each for each in casts if index.values.elem_type(each) == TensorProto.FLOAT16), None)


def _normed(index: Index, name: str) -> tuple[str, float, list[NodeProto]] | None:
    """What `name` is the norm of, epsilon, and the nodes that make it."""
    product = index.maker(name, "Mul", "Div")
    if product is None:
        return None
    for place in (0, 1) if product.op_type == "Mul" else (0,):
        x, factor = product.input[place], product.input[1 - place]
        root = _root(index, factor, is_inverse=product.op_type == "Mul")
        if root is None:
            continue
        variance, nodes = root
        found = _mean_square(index, variance, x)
        if found is not None:
            eps, before = found
            return x, eps, [*before, *nodes, product]
    return None


def _root(index: Index, name: str, *, is_inverse: bool) -> tuple[str, list[NodeProto]] | None:
    """The value whose square root `name` is, or 1 by that, and the nodes between."""
    if not is_inverse:
        root = index.maker(name, "Sqrt")
        return None if root is None else (root.input[0], [root])
    inverse = index.maker(name, "Reciprocal", "Div", "Pow")
    if inverse is None:
        return None
    if inverse.op_type == "Pow":
        return (inverse.input[0], [inverse]) if index.scalar(inverse.input[1]) == -0.5 else None
    if inverse.op_type == "Div" and index.scalar(inverse.input[0]) != 1:
        return None
    root = index.maker(inverse.input[-1], "Sqrt")
    return None if root is None else (root.input[0], [root, inverse])


def _mean_square(index: Index, name: str, x: str) -> tuple[float, list[NodeProto]] | None:
    """Epsilon, where `name` is the mean of the squares of `x` over the last axis plus that."""
    total = index.maker(name, "Add")
    if total is None:
        return None
    for place in (0, 1):
        eps = index.scalar(total.input[1 - place])
        mean = index.maker(total.input[place], "ReduceMean")
        if eps is None or mean is None:
            continue
        rank, places = index.rank(x), index.ints(mean, 1)
        is_last = places is not None and rank is not None and [each % rank for each in places] == [rank - 1]
        square = index.maker(mean.input[0], "Mul", "Pow")
        if not is_last or square is None or not attributes_of(mean).get("keepdims", 1):
            continue
        is_square = (
            list(square.input) == [x, x]
            if square.op_type == "Mul"
            else square.input[0] == x and index.scalar(square.input[1]) == 2
        )
        if is_square:
            return eps, [square, mean, total]
    return None


def _constants(index: Index, nodes: list[NodeProto], operands: set[str]) -> list[NodeProto]:
    made = {name for node in nodes for name in node.output}
    needed = dict.fromkeys(name for node in nodes for name in node.input if name not in made | operands)
    found: list[NodeProto] = []
    for name in needed:
        array = index.constant(name)
        assert array is not None
        found.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
    return found
