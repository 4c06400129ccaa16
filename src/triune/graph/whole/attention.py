"""Scaled dot-product attention, kept whole."""

from collections.abc import Iterator

from onnx import NodeProto

from triune.graph.ane.index import Index, perm_of
from triune.graph.axes import positive
from triune.graph.builder import Builder
from triune.graph.values import attributes_of
from triune.graph.whole.outline import RESULT, Outline

_SWAPPED = (0, 1, 3, 2)


def find_attentions(index: Index) -> Iterator[Outline]:
    """Given softmax(q * k^T * scale + mask) * v of four dimensions (batch, heads, steps, width), the scale on any of
    its factors or none. Result: `scaled_dot_product_attention`.
    """
    for node in index.graph.node:
        if node.op_type == "MatMul":
            found = _of(index, node)
            if found is not None:
                yield found


def _of(index: Index, end: NodeProto) -> Outline | None:
    softmax = index.maker(end.input[0], "Softmax")
    value = end.input[1]
    if softmax is None or any(index.rank(name) != 4 for name in (softmax.output[0], value)):
        return None
    if positive(int(attributes_of(softmax).get("axis", -1)), 4) != 3:
        return None
    for scores, mask in _masked(index, softmax.input[0]):
        scale, product = _scaled(index, scores)
        matmul = index.maker(product, "MatMul")
        if matmul is None or any(index.rank(name) != 4 for name in matmul.input):
            continue
        query_scale, query = _scaled(index, matmul.input[0])
        key_scale, key = _key(index, matmul.input[1])
        operands = {"query": query, "key": key, "value": value}
        if mask:
            operands["attn_mask"] = mask
        scale *= query_scale * key_scale
        body = _body(index, scale, is_masked=bool(mask), dtype=index.values.elem_type(value))
        settings = {"scale": scale, "is_causal": 0, "window_size": 0}
        return Outline("scaled_dot_product_attention", end, operands, body, settings)
    return None


def _masked(index: Index, name: str) -> list[tuple[str, str]]:
    """The scores and the mask that make `name`: none, or either operand of a sum."""
    total = index.maker(name, "Add")
    if total is None:
        return [(name, "")]
    first, second = total.input
    return [(first, second), (second, first)]


def _scaled(index: Index, name: str) -> tuple[float, str]:
    """By what number which value is multiplied."""
    node = index.maker(name, "Mul", "Div")
    for place in (0, 1) if node is not None and node.op_type == "Mul" else (1,):
        factor = index.scalar(node.input[place]) if node is not None else None
        if node is not None and factor:
            rest, value = _scaled(index, node.input[1 - place])
            return (factor if node.op_type == "Mul" else 1 / factor) * rest, value
    return 1.0, name


def _key(index: Index, name: str) -> tuple[float, str]:
    """The scale, and the key that is transposed into `name`."""
    scale, value = _scaled(index, name)
    turned = index.maker(value, "Transpose")
    if turned is None:
        return scale, index.build.op("Transpose", value, perm=list(_SWAPPED))
    perm = [perm_of(turned, 4)[place] for place in _SWAPPED]
    inner, given = _scaled(index, turned.input[0])
    if perm == [0, 1, 2, 3]:
        return scale * inner, given
    return scale * inner, index.build.op("Transpose", given, perm=perm)


def _body(index: Index, scale: float, *, is_masked: bool, dtype: int) -> list[NodeProto]:
    body = Builder("body")
    turned = body.op("Transpose", "key", perm=list(_SWAPPED))
    factor = body.cast(body.constant(scale, "float32"), dtype)
    scores = body.op("MatMul", body.op("Mul", "query", factor), turned)
    if is_masked:
        scores = body.op("Add", scores, "attn_mask")
    body.put("MatMul", [body.op("Softmax", scores, axis=-1), "value"], [RESULT])
    return body.nodes
