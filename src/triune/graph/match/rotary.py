"""Match rotary position embeddings: x * cos + rotate_half(x) * sin.

Su et al., "RoFormer" (2021). As in LLaMA, the elements i and i + width / 2 of a head are the two coordinates that are
rotated: rotate_half(x) is Concat(-second half of x, first half of x) along the last axis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index
from triune.graph.match.channels import Channels, IsSource, trace
from triune.graph.values import attributes_of

_KEEPS_HALVES = ("Cos", "Sin", "Unsqueeze", "Squeeze", "Cast", "Identity")


@dataclass(frozen=True, slots=True)
class RotaryEmbedding:
    """Add(Mul(x, cos), Mul(rotate_half(x), sin)).

    Attributes:
        x: the name of the value that is rotated, (..., width).
        cos: the name of the table of cosines, which broadcasts against x.
        sin: the name of the table of sines, which broadcasts against x.
        nodes: the nodes from the Neg to the Add, in order, without those that slice x into halves.
    """

    x: str
    cos: str
    sin: str
    nodes: Sequence[NodeProto]


def match_rotary(index: Index, add: NodeProto, is_source: IsSource) -> Iterator[RotaryEmbedding]:
    """Yield all matches of a rotary embedding that end with an Add: usually none or one.

    Args:
        index: the index of the graph.
        add: the Add.
        is_source: whether the search back from x ends at a value (B, S, C), of which x selects channels
            (`channels.trace`). So the halves of x are recognized even if they were sliced before the heads were
            reshaped.
    """
    products = [index.producer(name, "Mul") for name in add.input] if add.op_type == "Add" else []
    for unrotated, rotated in (products, products[::-1]) if products else ():
        if unrotated is None or rotated is None:
            continue
        for operand in (0, 1):
            concat = index.producer(rotated.input[operand], "Concat")
            halves = None if concat is None else _halves(index, concat)
            if concat is None or halves is None:
                continue
            first, negated = halves
            for x, cos in (unrotated.input, reversed(unrotated.input)):
                if _are_halves_of(index, is_source, x, first, negated.input[0]):
                    nodes = (negated, concat, unrotated, rotated, add)
                    yield RotaryEmbedding(x, cos, rotated.input[1 - operand], nodes)


def has_equal_halves(index: Index, table: str, width: int) -> bool:
    """Whether the two halves of a table's last axis, of `width` elements, are equal."""
    array = index.constant(table)
    if array is not None:
        half = width // 2
        return array.shape[-1:] == (width,) and bool((array[..., :half] == array[..., half:]).all())
    node = index.producer(table)
    if node is None:
        return False
    rank = index.rank(table) or 0
    match node.op_type:
        case "Concat":
            is_last = positive(int(attributes_of(node)["axis"]), rank) == rank - 1
            return bool(rank) and is_last and len(node.input) == 2 and node.input[0] == node.input[1]
        case "Mul":
            factors = [operand for operand in (0, 1) if index.scalar(node.input[operand]) is not None]
            return bool(factors) and has_equal_halves(index, node.input[1 - factors[0]], width)
        case "Unsqueeze" | "Squeeze":
            # Look at the operand's halves if its last axis is also the table's last axis, which is so if the table's
            # last axis has `width` elements.
            dims = index.dims(table)
            return dims is not None and dims[-1] == width and has_equal_halves(index, node.input[0], width)
        case "Slice":
            axes = index.ints(node, 3)
            is_complete = axes is not None and all(positive(each, rank) != rank - 1 for each in axes)
            return is_complete and has_equal_halves(index, node.input[0], width)
        case "Gather":
            # A Gather along axis 0 keeps the halves of each row. Of a vector it selects elements, and keeps no halves.
            is_of_rows = not int(attributes_of(node).get("axis", 0)) and (index.rank(node.input[0]) or 0) > 1
            return is_of_rows and has_equal_halves(index, node.input[0], width)
        case _:
            return node.op_type in _KEEPS_HALVES and has_equal_halves(index, node.input[0], width)


def _halves(index: Index, concat: NodeProto) -> tuple[str, NodeProto] | None:
    """If a Concat is [-second, first] along the last axis, the name of `first` and the Neg; else None."""
    rank = index.rank(concat.output[0])
    if rank is None or rank < 3 or len(concat.input) != 2:
        return None
    if positive(int(attributes_of(concat)["axis"]), rank) != rank - 1:
        return None
    negated = index.producer(concat.input[0], "Neg")
    return None if negated is None else (concat.input[1], negated)


def _are_halves_of(index: Index, is_source: IsSource, x: str, first: str, second: str) -> bool:
    dims = index.dims(x)
    width = dims[-1] if dims else None
    if isinstance(width, int) and width % 2 == 0 and _half_of(index, first) == (x, 0):
        return _half_of(index, second) == (x, width // 2)
    heads, *parts = (trace(index, is_source, name) for name in (x, first, second))
    if heads is None or len(heads.axes) != 4:
        return False
    width = heads.axes[3]
    if not isinstance(width, Channels) or width.size % 2 or width.times != 1:
        return False
    half, size = Channels(width.size // 2, width.stride), width.size // 2 * width.stride
    offsets = (heads.offset, heads.offset + size)
    return all(
        part == heads.moved([*heads.axes[:3], half], offset=offset) for part, offset in zip(parts, offsets, strict=True)
    )


def _half_of(index: Index, name: str) -> tuple[str, int] | None:
    """If `name` is one half of the last axis of x, the name of x and the half's first index; else None."""
    node = index.producer(name, "Slice", "Split")
    rank = index.rank(name)
    if node is None or rank is None:
        return None
    if node.op_type == "Split":
        if len(node.output) != 2 or positive(int(attributes_of(node).get("axis", 0)), rank) != rank - 1:
            return None
        first, second = (index.dims(each) for each in node.output)
        if first is None or second is None or first[-1] != second[-1] or not isinstance(first[-1], int):
            return None
        return node.input[0], 0 if name == node.output[0] else first[-1]
    starts, axes = index.ints(node, 1), index.ints(node, 3)
    steps = index.ints(node, 4) if len(node.input) > 4 and node.input[4] else [1]
    dims, result = index.dims(node.input[0]), index.dims(name)
    if starts is None or axes is None or len(starts) != 1 or steps != [1] or positive(axes[0], rank) != rank - 1:
        return None
    if dims is None or result is None or not isinstance(dims[-1], int) or result[-1] != dims[-1] // 2:
        return None
    return node.input[0], starts[0] + dims[-1] if starts[0] < 0 else starts[0]
