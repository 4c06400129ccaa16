"""Match attention that replaces NaN: Where(IsNaN(Softmax(scores)), 0, Softmax(scores)).

A row of scores that is all -inf gives a Softmax of NaN. Models that PyTorch exports replace NaN by 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from triune.graph.axes import positive
from triune.graph.index import Index
from triune.graph.match.multi_head import match_merged_heads
from triune.graph.match.no_match import NoMatchError
from triune.graph.values import attributes_of


@dataclass(frozen=True, slots=True)
class NanGuard:
    """An attention with softmax(scores + mask) of (B, heads, Q, K), a Where that replaces NaN in it by 0, and a MatMul
    with values.

    Attributes:
        softmax: the Softmax.
        guard: the Where that gives 0 in place of NaN.
        output: the Reshape that gives the result of the attention (B, Q, C).
        mask: the name of the mask (B, 1, Q, K).
        may_be_empty: whether a row of the mask may be all -inf. Only such rows give NaN.
        nodes: all nodes from the Softmax to `output`.
    """

    softmax: NodeProto
    guard: NodeProto
    output: NodeProto
    mask: str
    may_be_empty: bool
    nodes: Sequence[NodeProto]


def match_nan_guard(index: Index, softmax: NodeProto) -> NanGuard | None:
    """The pattern that begins with a Softmax; None if no node replaces NaN in its result.

    Raises:
        NoMatchError: NaN are replaced, but the mask or the readers do not fit the pattern.
    """
    shares = softmax.output[0]
    guard = next((node for node in index.readers(shares) if _is_guard(index, node, shares)), None)
    if guard is None:
        return None
    if positive(int(attributes_of(softmax).get("axis", -1)), 4) != 3 or index.rank(shares) != 4:
        raise NoMatchError("its NaN are replaced, but its scores are not (B, heads, Q, K)")
    after = _output(index, guard)
    if after is None:
        raise NoMatchError("its NaN are replaced, but its heads are not merged to (B, Q, C)")
    add = index.producer(softmax.input[0], "Add")
    for mask in add.input if add is not None else ():
        dims = index.dims(mask)
        if dims is None or len(dims) != 4 or dims[1] != 1:
            continue
        may_be_empty = _may_have_empty_rows(index, mask)
        if may_be_empty is not None:
            return NanGuard(softmax, guard, after[-1], mask, may_be_empty, [softmax, guard, *after])
    raise NoMatchError(
        "its NaN are replaced, but its mask (B, 1, Q, K) is neither a constant nor a Where of two constants"
    )


def _is_guard(index: Index, node: NodeProto, shares: str) -> bool:
    """Whether a node is Where(IsNaN(shares), 0, shares), or Where(Equal(shares, shares), shares, 0).

    `shares` is the name of the Softmax's result. In core operators, IsNaN(x) is Not(Equal(x, x)).
    """
    if node.op_type != "Where":
        return False
    condition, (on_nan, otherwise) = index.producer(node.input[0], "Not"), node.input[1:]
    same = index.producer(condition.input[0] if condition is not None else node.input[0], "Equal")
    if condition is None:
        on_nan, otherwise = otherwise, on_nan
    return (
        same is not None and list(same.input) == [shares, shares] and otherwise == shares and index.scalar(on_nan) == 0
    )


def _output(index: Index, guard: NodeProto) -> list[NodeProto] | None:
    """The MatMul with values, and the Transpose and Reshape that merge the heads; None if other nodes follow."""
    product = index.only_reader(guard.output[0])
    if product is None or product.op_type != "MatMul" or product.input[0] != guard.output[0]:
        return None
    try:
        transpose, reshape = match_merged_heads(index, product)
    except NoMatchError:
        return None
    return [product, transpose, reshape] if index.rank(reshape.output[0]) == 3 else None


def _may_have_empty_rows(index: Index, mask: str) -> bool | None:
    """Whether a row of the mask may be all -inf; None if that is not known, or if the mask has NaN or +inf."""
    array = index.constant(mask)
    if array is not None:
        is_sound = not (np.isnan(array) | np.isposinf(array)).any()
        return bool(np.isneginf(array).all(axis=-1).any()) if is_sound else None
    choice = index.producer(mask, "Where")
    if choice is None:
        return None
    values = [index.scalar(name) for name in choice.input[1:]]
    if any(value is None or np.isnan(value) or np.isposinf(value) for value in values):
        return None
    return any(value is not None and np.isneginf(value) for value in values)
