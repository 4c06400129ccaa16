"""Lowering of TopK, OneHot, NonZero and ReverseSequence, and the attribute `reduction` of scatters."""

from collections.abc import Mapping

from triune.graph.axes import positive
from triune.graph.conversion.context import Lowering, NodeContext
from triune.graph.conversion.lowering.builder import Dim
from triune.graph.conversion.problems import Refusal
from triune.graph.conversion.scope import V


def _count(c: NodeContext[V]) -> Dim[V]:
    """Input 1, a single integer: a number if it is known at conversion time, else an int32 scalar of the program."""
    known = c.constant(1)
    if known is not None:
        return int(known.reshape(-1)[0])
    return c.builder.cast(c.builder.reshape(c.input(1), []), "int32")


def _top_k(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    axis = positive(int(c.attributes.get("axis", -1)), b.rank(x))
    values, indices = b.top_k(x, _count(c), axis, is_largest=bool(c.attributes.get("largest", 1)))
    c.give(values)
    c.give(indices, 1)


def _one_hot(c: NodeContext[V]) -> None:
    """OneHot: compare each index with 0, 1, ..., depth - 1. As in ONNX, an index out of range gives all "off"."""
    b, count = c.builder, _count(c)
    indices = b.cast(c.input(0), "int32")
    rank = b.rank(indices) + 1
    axis = positive(int(c.attributes.get("axis", -1)), rank)
    positions = b.unsqueeze(b.iota(count), [each for each in range(rank) if each != axis])
    hits = b.equal(b.unsqueeze(b.from_front(indices, count), [axis]), positions)
    off, on = (b.take(c.input(2), each) for each in range(2))
    c.give(b.elementwise("Where", hits, on, off))


def _non_zero(c: NodeContext[V]) -> None:
    b, x = c.builder, c.input(0)
    if b.rank(x) == 0:
        raise Refusal("the indices of a scalar; reshape it to [1]")
    c.give(b.transpose(b.nonzero_indices(x), [1, 0]))


def _reverse_sequence(c: NodeContext[V]) -> None:
    time, batch = (int(c.attributes.get(f"{name}_axis", position)) for position, name in enumerate(("time", "batch")))
    c.give(c.builder.reverse_sequence(c.input(0), c.input(1), time, batch))


def tuple_length(c: NodeContext[V]) -> int:
    """How many indices each tuple of GatherND or ScatterND has: the size of the last dimension of input 1."""
    length = c.builder.shape(c.input(1))[-1]
    if length is None:
        raise Refusal("the size of the last dimension of the indices is not known; fix it with --shape")
    return length


def scatter_mode(c: NodeContext[V]) -> str:
    """How a scatter combines an element with its updates: "add", "mul", "max", "min", or "update" to replace it."""
    reduction = str(c.attributes.get("reduction", "none"))
    if c.builder.is_bool(c.input(0)) and reduction not in ("none", "max", "min"):
        raise Refusal(f"reduction '{reduction}' of booleans; cast them to integers")
    return "update" if reduction == "none" else reduction


TABLE: Mapping[str, Lowering] = {
    "TopK": _top_k,
    "OneHot": _one_hot,
    "NonZero": _non_zero,
    "ReverseSequence": _reverse_sequence,
}
