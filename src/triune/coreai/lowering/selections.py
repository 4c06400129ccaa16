"""Operations on the result of a selection, which may be empty: NonZero may find no element.

Apple's interpreter (1.0.0b3) takes the larger of the sizes 0 and 1 as the size to which it broadcasts, and then ends
its process. Where a selection decides the sizes, operands are broadcast to one another beforehand.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from onnx import GraphProto

from triune.coreai.library import Value, rewritten
from triune.coreai.lowering.dims import Dim, dims_of, shaped, spread
from triune.coreai.lowering.values import like, rank_of
from triune.graph.values import Values, subgraphs_of

_SELECTS = ("NonZero", "NonMaxSuppression")


def selections(graph: GraphProto, outer: Values | None = None, around: frozenset[str] = frozenset()) -> frozenset[str]:
    """The names of values in a graph and its subgraphs with a size that depends on what a NonZero or NonMaxSuppression
    selects.

    `around` has the names of such values in the outer graphs.
    """
    values, found = Values(graph, outer), set(around)
    for node in graph.node:
        for inner in subgraphs_of(node):
            found |= selections(inner, values, frozenset(found))
        if node.op_type in _SELECTS or found.intersection(node.input):
            found.update(name for name in node.output if name and _is_open(values, name))
    return frozenset(found)


def _is_open(values: Values, name: str) -> bool:
    """Whether a value has a size that is neither known nor the size of an input."""
    shape = values.shape(name)
    return shape is None or any(values.may_be_empty(name, axis) for axis in range(len(shape)))


def spreading() -> AbstractContextManager[None]:
    """A context in which the operands of elementwise operations are broadcast to one another before the operation,
    where a size of 1 meets a size that is known only at run time and may be 0.
    """
    return rewritten(_spread)


def _spread(name: str, operands: Sequence[Value]) -> tuple[str, Sequence[Value]]:
    """Broadcast the operands of an operation to one another. A relu is first replaced by the maximum of `x` and 0."""
    if name == "relu":
        return _spread("broadcasting_maximum", [operands[0], like(operands[0], 0)])
    if not name.startswith("broadcasting_") or name.endswith("matmul"):
        return name, operands
    rank = max(rank_of(each) for each in operands)
    sizes = [[*[1] * (rank - rank_of(each)), *dims_of(each)] for each in operands]
    return name, [_to(each, own, sizes) for each, own in zip(operands, sizes, strict=True)]


def _to(x: Value, own: Sequence[Dim], sizes: Sequence[Sequence[Dim]]) -> Value:
    """Broadcast `x` along axes where its size is 1 and the size of another operand is known only at run time.

    `own` are the sizes of `x` with ones in front, up to the rank of the result; `sizes` are those of all operands.
    """
    wanted = [
        next((other[axis] for other in sizes if other[axis] != 1), 1) if isinstance(size, int) and size == 1 else size
        for axis, size in enumerate(own)
    ]
    is_free = [not isinstance(want, int) and size is not want for want, size in zip(wanted, own, strict=True)]
    if not any(is_free):
        return x
    return spread(x if rank_of(x) == len(own) else shaped(x, own), wanted)
