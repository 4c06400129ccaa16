"""Contradictions in a node of com.microsoft: its operands' types, its attributes, and shapes."""

import math
from collections.abc import Iterator, Mapping

from onnx import TensorProto

from triune.graph.contradictions.facts import Facts, Rule, differ, must_be, must_be_an_axis, must_broadcast
from triune.graph.contradictions.microsoft.signatures import KINDS, REQUIRED, SIGNATURES

_POSITIVE = ("num_heads", "kv_num_heads", "hidden_size", "K", "N")
_MOST = 1 << 31
"""Sizes and counts in attributes must be smaller than this: with larger ones, computed sizes would overflow their type.
"""

_BITS = (2, 4, 8)
_SMALLEST_BLOCK = 16


def wrong_at(facts: Facts) -> Iterator[str]:
    """Yield a message for each contradiction in a node of com.microsoft: its operands' types, attributes and shapes."""
    found = [*_operands(facts), *_attributes(facts)]
    yield from found
    rule = _RULES.get(facts.node.op_type)
    if not found and rule is not None:
        yield from rule(facts)


def _operands(facts: Facts) -> Iterator[str]:
    node, wanted = facts.node, SIGNATURES.get(facts.node.op_type, "").split()
    if wanted and len(node.input) > len(wanted):
        yield f"it has {len(node.input)} inputs, and {len(wanted)} at most"
    if wanted and not node.output:
        yield "it has no output"
    of_group: dict[str, tuple[str, int]] = {}
    for index, token in enumerate(wanted):
        name = facts.name(index)
        if not name:
            if not token.endswith("?"):
                yield f"input {index} is missing"
            continue
        elem_type = facts.values.elem_type(name)
        if not elem_type:
            continue
        words, types = KINDS[token[0]]
        group = token.rstrip("?")
        first, first_type = of_group.setdefault(group, (name, elem_type))
        if elem_type not in types:
            yield f"'{name}' is {_type_name(elem_type)}, and has to be {words}"
        elif len(group) > 1 and elem_type != first_type:
            yield f"'{first}' is {_type_name(first_type)} and '{name}' {_type_name(elem_type)}: they are of one type"


def _type_name(elem_type: int) -> str:
    return TensorProto.DataType.Name(elem_type)


def _attributes(facts: Facts) -> Iterator[str]:
    for name in REQUIRED.get(facts.node.op_type, ()):
        if name not in facts.attributes:
            yield f"the attribute '{name}' is missing"
    for name in _POSITIVE:
        if name in facts.attributes and not 1 <= facts.attributes[name] < _MOST:
            yield f"'{name}' is {facts.attributes[name]}, and has to be from 1 to {_MOST - 1}"


def _must_divide(facts: Facts, index: int, size: int | None, heads: int) -> Iterator[str]:
    if size is not None and size % heads:
        yield f"the width {size} of {facts.described(index)} has to be a multiple of {heads} heads"


def _attention(facts: Facts) -> Iterator[str]:
    """Check Attention and QAttention: x (batch, steps, width), and the weights of queries, keys and values in one
    matrix.
    """
    yield from must_be(facts, 0, [None, None, None])
    yield from must_be(facts, 1, [facts.size(0, 2), None])
    columns, heads = facts.size(1, 1), facts.attributes["num_heads"]
    yield from must_be(facts, 2, [columns])
    widths = list(facts.attributes.get("qkv_hidden_sizes", ()))
    if not widths and columns is not None:
        if columns % 3:
            yield f"the {columns} columns of {facts.described(1)} have to be a multiple of 3"
            return
        widths = [columns // 3] * 3
    if widths and (len(widths) != 3 or widths[0] != widths[1] or differ(sum(widths), columns)):
        yield f"'qkv_hidden_sizes' is {widths}, which does not fit {facts.described(1)}"
        return
    for width in widths[::2]:
        yield from _must_divide(facts, 1, width, heads)


def _multi_head(facts: Facts) -> Iterator[str]:
    rank = facts.rank(0)
    if rank not in (None, 3, 5):
        yield f"{facts.described(0)} has to be of rank 3 or 5"
    heads = facts.attributes["num_heads"]
    for index in (0, 1, 2):
        if facts.rank(index) == 3:
            yield from _must_divide(facts, index, facts.size(index, 2), heads)
    if facts.rank(0) == facts.rank(1) == 3 and differ(facts.size(0, 2), facts.size(1, 2)):
        yield f"{facts.described(0)} and {facts.described(1)} differ in the last dimension"


def _group_query(facts: Facts) -> Iterator[str]:
    heads, groups = facts.attributes["num_heads"], facts.attributes["kv_num_heads"]
    if heads % groups:
        yield f"'num_heads' {heads} has to be a multiple of 'kv_num_heads' {groups}"
    yield from must_be(facts, 0, [None, None, None])
    yield from _must_divide(facts, 0, facts.size(0, 2), heads if facts.name(1) else heads + 2 * groups)
    for index in (1, 2):
        if facts.name(index) and facts.rank(index) == 3:
            yield from _must_divide(facts, index, facts.size(index, 2), groups)
    if facts.name(3) and differ(facts.size(0, 1), facts.size(1, 1) if facts.rank(1) == 3 else None):
        yield f"{facts.described(0)} and {facts.described(1)} differ in the number of steps"
    if facts.rank(5) == 0:
        yield f"{facts.described(5)} has to be of rank 1 or more"


def _rotary(facts: Facts) -> Iterator[str]:
    if facts.rank(0) not in (None, 3, 4):
        yield f"{facts.described(0)} has to be of rank 3 or 4"
    yield from must_be(facts, 2, [None, None])
    yield from must_be(facts, 3, facts.shape(2) or [None, None])
    if facts.rank(1) == 2 and facts.rank(0) in (3, 4):
        yield from must_be(facts, 1, [facts.size(0, 0), facts.size(0, -2)])


def _bias(facts: Facts) -> Iterator[str]:
    """Check BiasGelu and FastGelu: the bias has an element for each element of the last axis."""
    if facts.name(1):
        yield from must_be(facts, 1, [facts.size(0, -1)])


def _skip_norm(facts: Facts) -> Iterator[str]:
    if facts.rank(0) not in (None, 2, 3):
        yield f"{facts.described(0)} has to be of rank 2 or 3"
    given = facts.shape(0)
    if given is not None:
        yield from must_broadcast(facts, 1, given)
        for index in range(2, len(facts.node.input)):
            if facts.name(index):
                yield from must_be(facts, index, [given[-1] if given else None])


def _embed(facts: Facts) -> Iterator[str]:
    """Check EmbedLayerNormalization and QEmbedLayerNormalization: ids (batch, steps), tables (words, width)."""
    yield from must_be(facts, 0, [None, None])
    ids = facts.shape(0)
    for index in (1, 7):
        if facts.name(index) and ids is not None:
            yield from must_be(facts, index, ids)
    for index in (2, 3, 4):
        if facts.name(index):
            yield from must_be(facts, index, [None, facts.size(2, 1)])
    for index in (5, 6):
        yield from must_be(facts, index, [facts.size(2, 1)])


def _pool(facts: Facts) -> Iterator[str]:
    """Check QLinearAveragePool and NhwcMaxPool."""
    kernel, rank = facts.attributes["kernel_shape"], facts.rank(0)
    if rank is not None and len(kernel) != rank - 2:
        yield f"'kernel_shape' is {list(kernel)}, and {facts.described(0)} needs {rank - 2} sizes"
    elif any(size < 1 for size in kernel):
        yield f"'kernel_shape' is {list(kernel)}, and sizes have to be 1 or more"


def _lstm(facts: Facts) -> Iterator[str]:
    hidden = facts.attributes["hidden_size"]
    directions = 2 if facts.attributes.get("direction", b"forward") in (b"bidirectional", "bidirectional") else 1
    wanted = {
        0: [None, None, None],
        1: [directions, facts.size(0, 2), 4 * hidden],
        2: [directions, hidden, 4 * hidden],
        3: [directions, 8 * hidden],
        4: [facts.size(0, 1)],
        5: [directions, facts.size(0, 1), hidden],
        6: [directions, facts.size(0, 1), hidden],
        7: [directions, 3 * hidden],
    }
    for index, shape in wanted.items():
        if facts.name(index):
            yield from must_be(facts, index, shape)


def _gemm(facts: Facts) -> Iterator[str]:
    """Check QGemm: both operands are matrices."""
    yield from must_be(facts, 0, [None, None])
    yield from must_be(facts, 3, [None, None])


def _of_blocks(facts: Facts, default: int) -> Iterator[str]:
    bits, block = facts.attributes.get("bits", 4), facts.attributes.get("block_size", default)
    if bits not in _BITS:
        yield f"'bits' is {bits}, and has to be 2, 4 or 8"
    if block < _SMALLEST_BLOCK or block & (block - 1):
        yield f"'block_size' is {block}, and has to be a power of 2 from {_SMALLEST_BLOCK} on"


def _n_bits(facts: Facts) -> Iterator[str]:
    """Check MatMulNBits: weights (N, blocks, bytes) and scales (N, blocks), or as many elements in another shape."""
    found = [*_of_blocks(facts, _SMALLEST_BLOCK)]
    yield from found
    width, columns = facts.attributes["K"], facts.attributes["N"]
    yield from must_be(facts, 0, [*[None] * max((facts.rank(0) or 1) - 1, 0), width])
    if found:
        return
    block, bits = facts.attributes["block_size"], facts.attributes.get("bits", 4)
    row_blocks = -(-width // block)
    num_blocks = columns * row_blocks
    is_packed = facts.values.elem_type(facts.name(3)) == TensorProto.UINT8
    points = columns * -(-row_blocks * bits // 8) if is_packed else num_blocks
    for index, count in ((1, num_blocks * block * bits // 8), (2, num_blocks), (3, points), (5, columns)):
        shape = facts.values.static_shape(facts.name(index)) if facts.name(index) else None
        if shape is not None and math.prod(shape) != count:
            yield f"{facts.described(index)} has to have {count} elements, by 'K', 'N', 'bits' and 'block_size'"
    shape = facts.values.static_shape(facts.name(4)) if facts.name(4) else None
    if shape is not None and math.prod(shape) not in (width, row_blocks * block):
        yield f"{facts.described(4)} has to have {width} elements, or {row_blocks * block} with those of a last block"
    groups = (facts.integers(4) or [0])[:width]
    if not 0 <= min(groups) <= max(groups) < row_blocks:
        yield f"'{facts.name(4)}' has blocks from {min(groups)} to {max(groups)}, and there are {row_blocks} from 0 on"


def _gather_blocks(facts: Facts) -> Iterator[str]:
    """Check GatherBlockQuantized."""
    yield from _of_blocks(facts, 128)
    for name, default in (("gather_axis", 0), ("quantize_axis", 1)):
        yield from must_be_an_axis(facts, name, facts.attributes.get(name, default), facts.rank(0))


_RULES: Mapping[str, Rule] = {
    "MatMulNBits": _n_bits,
    "GatherBlockQuantized": _gather_blocks,
    **dict.fromkeys(["Attention", "QAttention"], _attention),
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _group_query,
    "RotaryEmbedding": _rotary,
    **dict.fromkeys(["BiasGelu", "FastGelu"], _bias),
    **dict.fromkeys(["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"], _skip_norm),
    **dict.fromkeys(["EmbedLayerNormalization", "QEmbedLayerNormalization"], _embed),
    **dict.fromkeys(["QLinearAveragePool", "NhwcMaxPool"], _pool),
    "DynamicQuantizeLSTM": _lstm,
    "QGemm": _gemm,
}
