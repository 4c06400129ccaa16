"""Match root mean square normalization: x / sqrt(mean(x^2) + epsilon) * scale.

Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from triune.graph.index import Index
from triune.graph.match.mean_square import match_mean_square


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """Mul(x * (mean(x * x) + epsilon)^-0.5, scale) over the last axis.

    In an fp16 model the norm may be computed in fp32 between casts, since squares may be beyond fp16's range.

    Attributes:
        x: the name of the value that is normalized, in fp16 if the norm is between casts.
        scale: the name of a constant of one to three dimensions.
        epsilon: the constant that is added to the mean.
        computed_as: the name of the value that `nodes` read for x: x itself, or x cast to fp32.
        nodes: all nodes from the square to the Mul by the scale, in order, without the Cast of x to fp32.
    """

    x: str
    scale: str
    epsilon: float
    computed_as: str
    nodes: Sequence[NodeProto]


def match_rms_norm(index: Index, mul: NodeProto) -> RmsNorm | None:
    """The normalization that ends with this Mul by the scale, or None."""
    if mul.op_type != "Mul":
        return None
    for operand in (0, 1):
        scale = mul.input[1 - operand]
        dims = index.dims(scale)
        if not index.is_constant(scale) or dims is None or not 1 <= len(dims) <= 3:
            continue
        cast = _cast(index, mul.input[operand])
        normalized = _normalized(index, mul.input[operand] if cast is None else cast.input[0])
        if normalized is None:
            continue
        x, epsilon, nodes = normalized
        if cast is None:
            return RmsNorm(x, scale, epsilon, x, [*nodes, mul])
        half = _in_fp16(index, x)
        if half is not None:
            return RmsNorm(half, scale, epsilon, x, [*nodes, cast, mul])
    return None


def _cast(index: Index, name: str) -> NodeProto | None:
    """The Cast between fp16 and fp32 that computes a value; None if there is none."""
    cast = index.producer(name, "Cast")
    return cast if cast is not None and index.is_float(cast.input[0]) else None


def _in_fp16(index: Index, name: str) -> str | None:
    """The fp16 counterpart of the fp32 value `name`: the operand of the Cast that computes `name`, or else the result
    of a Cast of `name`; None if there is no such Cast.
    """
    cast = _cast(index, name)
    if cast is not None:
        return cast.input[0]
    casts = [node.output[0] for node in index.readers(name) if node.op_type == "Cast"]
    return next((each for each in casts if index.values.elem_type(each) == TensorProto.FLOAT16), None)


def _normalized(index: Index, name: str) -> tuple[str, float, list[NodeProto]] | None:
    """If `name` is x / sqrt(mean(x^2) + epsilon), the name of x, epsilon, and the nodes that compute
    `name` from x; else None.
    """
    product = index.producer(name, "Mul", "Div")
    if product is None:
        return None
    for operand in (0, 1) if product.op_type == "Mul" else (0,):
        x, factor = product.input[operand], product.input[1 - operand]
        root = _root(index, factor, is_inverse=product.op_type == "Mul")
        total = None if root is None else index.producer(root[0], "Add")
        square = None if total is None else match_mean_square(index, total)
        rank = index.rank(x)
        if root is not None and square is not None and square.z == x and rank and square.axes == (rank - 1,):
            return x, square.epsilon, [*square.nodes, *root[1], product]
    return None


def _root(index: Index, name: str, *, is_inverse: bool) -> tuple[str, list[NodeProto]] | None:
    """If `name` is sqrt(v), or 1 / sqrt(v) with `is_inverse`, the name of v and the nodes that compute
    `name` from v; else None.
    """
    if not is_inverse:
        root = index.producer(name, "Sqrt")
        return None if root is None else (root.input[0], [root])
    inverse = index.producer(name, "Reciprocal", "Div", "Pow")
    if inverse is None:
        return None
    if inverse.op_type == "Pow":
        return (inverse.input[0], [inverse]) if index.scalar(inverse.input[1]) == -0.5 else None
    if inverse.op_type == "Div" and index.scalar(inverse.input[0]) != 1:
        return None
    root = index.producer(inverse.input[-1], "Sqrt")
    return None if root is None else (root.input[0], [root, inverse])
