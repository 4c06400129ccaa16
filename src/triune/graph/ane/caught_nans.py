"""Softmaxes whose NaN are caught."""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index, label, perm_of
from triune.graph.ane.step import Step
from triune.graph.axes import positive
from triune.graph.values import attributes_of


class CaughtNans(Step):
    """Given Softmax of scores and a mask, 0 in place of its NaN, MatMul with values, the heads put side by side.

    Result: the same without the catch, and 0 in the rows of the result in which the mask leaves nothing. Where the mask
    leaves something in every row there is no NaN, and the catch just goes.

    NaN come of rows of -inf alone if the scores are finite, which is what the catch is there for. Only of masks whose
    values are known: constants, and a choice between two.
    """

    name = "caught_nans"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Changes `model`."""
        index = self._index(model.graph)
        catches: dict[str, _Catch] = {}
        for node in model.graph.node:
            catch = _catch(index, node) if node.op_type == "Softmax" else None
            if isinstance(catch, str):
                self._report.leave(self.name, label(node), catch)
            elif catch is not None:
                catches[catch.caught.output[0]] = catch
        lasts = {catch.last.output[0]: catch for catch in catches.values() if catch.mask is not None}
        rows: dict[str, str] = {}
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            name = node.output[0] if node.output else ""
            if name in catches:
                index.build.put("Identity", [catches[name].softmax.output[0]], [name])
                nodes += index.take()
                self._report.change(self.name, label(catches[name].softmax), "its NaN are foreseen")
            elif name in lasts and (mask := lasts[name].mask) is not None:
                if mask not in rows:
                    rows[mask] = _empty_rows(index, mask)
                nodes += [*index.take(), node]
                node.output[0] = index.build.name()
                zero = index.weight(np.zeros((), index.dtype(name)))
                index.build.put("Where", [rows[mask], zero, node.output[0]], [name])
                nodes += index.take()
            else:
                nodes.append(node)
        index.replace(nodes)
        return model


@dataclass(frozen=True, slots=True)
class _Catch:
    """A catch.

    Attributes:
        softmax: the Softmax.
        caught: the Where that puts 0 in place of NaN.
        last: the Reshape that gives the result (B, Q, C).
        mask: (B, 1, Q, K), which may leave nothing in a row; None where it always leaves something.
    """

    softmax: NodeProto
    caught: NodeProto
    last: NodeProto
    mask: str | None


def _catch(index: Index, softmax: NodeProto) -> _Catch | str | None:
    """The catch of a Softmax, None if there is none, or the reason why it stays."""
    shares = softmax.output[0]
    caught = next((node for node in index.readers(shares) if _is_catch(index, node, shares)), None)
    if caught is None:
        return None
    if positive(int(attributes_of(softmax).get("axis", -1)), 4) != 3 or index.rank(shares) != 4:
        return "its NaN are caught, and its scores are not (B, heads, Q, K)"
    last = _last(index, caught)
    if last is None:
        return "its NaN are caught, and its result is not put side by side as (B, Q, C)"
    add = index.maker(softmax.input[0], "Add")
    for mask in add.input if add is not None else ():
        dims = index.dims(mask)
        if dims is None or len(dims) != 4 or dims[1] != 1:
            continue
        may_be_empty = _may_be_empty(index, mask)
        if may_be_empty is not None:
            return _Catch(softmax, caught, last, mask if may_be_empty else None)
    return "its NaN are caught, and nothing is known of its mask"


def _is_catch(index: Index, node: NodeProto, shares: str) -> bool:
    """Is it `Where(IsNaN(shares), 0, shares)`, in one of the ways to say it?"""
    if node.op_type != "Where":
        return False
    condition, (yes, no) = index.maker(node.input[0], "Not"), node.input[1:]
    same = index.maker(condition.input[0] if condition is not None else node.input[0], "Equal")
    if condition is None:
        yes, no = no, yes
    return same is not None and list(same.input) == [shares, shares] and no == shares and index.scalar(yes) == 0


def _last(index: Index, caught: NodeProto) -> NodeProto | None:
    """The Reshape after the product with values, and after the heads came to stand side by side."""
    product = index.only_reader(caught.output[0])
    if product is None or product.op_type != "MatMul" or product.input[0] != caught.output[0]:
        return None
    turn = index.only_reader(product.output[0])
    if turn is None or turn.op_type != "Transpose" or perm_of(turn, 4) != (0, 2, 1, 3):
        return None
    last = index.only_reader(turn.output[0])
    is_row = last is not None and last.op_type == "Reshape" and index.rank(last.output[0]) == 3
    return last if is_row else None


def _may_be_empty(index: Index, mask: str) -> bool | None:
    """May a row of the mask be of -inf alone? None where that cannot be told, or where it holds worse."""
    array = index.constant(mask)
    if array is not None:
        is_sound = not (np.isnan(array) | np.isposinf(array)).any()
        return bool(np.isneginf(array).all(axis=-1).any()) if is_sound else None
    choice = index.maker(mask, "Where")
    if choice is None:
        return None
    values = [index.scalar(name) for name in choice.input[1:]]
    if any(value is None or np.isnan(value) or np.isposinf(value) for value in values):
        return None
    return any(value is not None and np.isneginf(value) for value in values)


def _empty_rows(index: Index, mask: str) -> str:
    """Where the mask leaves nothing, (B, Q, 1)."""
    build = index.build
    most = build.op("ReduceMax", mask, build.ints(-1), keepdims=1)
    return build.op(
        "Squeeze", build.op("Equal", most, index.weight(np.array(-np.inf, index.dtype(mask)))), build.ints(1)
    )
