"""Masks of attention that fp16 can hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from triune.graph.ane.index import Index
from triune.graph.axes import positive
from triune.graph.half.bounds import Bounds
from triune.graph.values import attributes_of

MASKED = -30_000.0
"""What masks a score. The sum of two is still within fp16, and the exponential of one is 0."""

_ABSORBING = 1e8
"""A number from which fp32 does not tell scores apart: a score added to it is lost, since its last place is 8."""

_PRECISE = -2048.0
"""Down to here a sum with a score is precise in fp16, to 2 in its last place."""

_DEEPEST = 8
"""So many sums in each other are looked into."""

_LOWEST = float(np.finfo(np.float32).min)

_VIEWS = frozenset(["Identity", "Reshape", "Squeeze", "Unsqueeze"])

_CHOOSES = frozenset(
    [
        *_VIEWS,
        *("Where", "Trilu", "Slice", "Expand", "Tile", "Gather", "Concat", "Transpose", "Cast", "ScatterND"),
        *("Max", "Min", "ScatterElements"),
    ]
)
"""Operators whose results are elements of their operands, or 0 and 1."""

_HEAVY = frozenset(
    ["MatMul", "Gemm", "Conv", "ConvTranspose", "Softmax", "LSTM", "GRU", "RNN", "LayerNormalization", "If", "Loop"]
)
"""Operators that a mask is not made by."""


@dataclass(frozen=True, slots=True)
class _Term:
    """A value times a number, as a part of a sum."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class _Mask:
    """A mask that fp16 holds.

    Attributes:
        added: what is added to the scores.
        live: 0 in rows in which fp32 loses the scores, 1 in the others, as fp32; None where all rows are live.
    """

    added: str
    live: str | None


def fit_masks(model: ModelProto) -> frozenset[str]:
    """Given Softmax of scores and masks of -3.4e38, -1e9 and their like. Result: masks of -30000.

    A row of the Softmax does not change when one number is added to all of it. So the largest number of each row of the
    mask is subtracted from that row, in fp32, and what is left is cut off at `MASKED`, which fp16 holds: a row masked
    whole by -10000 has the shares of its scores, as in fp32. Where the largest is beyond 1e8 fp32 itself loses the
    scores, and its shares are equal: such rows of scores are multiplied by 0. -inf stays -inf, which fp16 has.

    Args:
        model: normalized and narrowed; changed. New values have no types yet. Graphs within its nodes stay as they are.

    Returns:
        the nodes that make masks and are to compute in fp32, each by its first result.
    """
    index = Index(model.graph, "half/masks")
    bounds = Bounds(index.values)
    for node in model.graph.node:
        bounds.learn(node)
    masks = _Masks(index, bounds)
    ends = {end: axis for node in model.graph.node for end, axis in masks.ends(node)}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0] if node.output else ""
        if name not in ends:
            continue
        result = masks.fitted(name, ends[name])
        nodes[-1:-1] = index.take()
        if result != name:
            nodes[-1] = helper.make_node("Identity", [result], [name], name=f"{result}/given")
    index.replace(nodes)
    return frozenset(masks.wide)


class _Masks:
    """The sums of scores and masks in one graph; each mask is made once.

    Attributes:
        wide: the first results of the nodes that make masks.
    """

    def __init__(self, index: Index, bounds: Bounds) -> None:
        self._index = index
        self._bounds = bounds
        self.wide: set[str] = set()
        self._made: dict[tuple[tuple[_Term, ...], int], _Mask | None] = {}
        # The values that a product of matrices or the like is among the makers of.
        self._heavy: set[str] = set()
        for node in index.graph.node:
            is_made_so = any(name in self._heavy for name in node.input) and node.op_type not in ("Shape", "Size")
            if node.op_type in _HEAVY or is_made_so:
                self._heavy.update(node.output)

    def ends(self, softmax: NodeProto) -> list[tuple[str, int]]:
        """What a Softmax is of, before reshapes that leave its last axis alone, and the axis counted from the end."""
        index = self._index
        if softmax.op_type != "Softmax":
            return []
        name = softmax.input[0]
        rank = index.rank(name)
        if not rank:
            return []
        axis = positive(int(attributes_of(softmax).get("axis", -1)), rank) - rank
        while index.only_reader(name) is not None:
            limited = self._limited(name)
            if limited is not None:
                name = limited
                continue
            view = index.maker(name, *_VIEWS)
            if view is None or axis != -1 or not self._keeps_last(view):
                return [(name, axis)] if index.maker(name) is not None else []
            name = view.input[0]
        return []

    def _limited(self, name: str) -> str | None:
        """What a maximum with a mask's own number is of: it changes nothing that counts."""
        limit = self._index.maker(name, "Max")
        for place in (0, 1) if limit is not None else ():
            array = self._index.constant(limit.input[place]) if limit is not None else None
            if limit is not None and array is not None and array.size and (array <= MASKED).all():
                return limit.input[1 - place]
        return None

    def _keeps_last(self, view: NodeProto) -> bool:
        given, made = (self._index.dims(name) for name in (view.input[0], view.output[0]))
        return bool(given and made) and given is not None and made is not None and given[-1] == made[-1]

    def fitted(self, name: str, axis: int) -> str:
        """The same value, but for a number in each row, with masks that fp16 holds; `name` where nothing is to do."""
        index = self._index
        choice = index.maker(name, "Where")
        if choice is not None:
            return self._chosen(choice, axis)
        terms = self._terms(name, 1.0)
        masks = [term for term in terms if self._is_mask(term, terms)]
        scores = [term for term in terms if term not in masks]
        if not scores:
            return name
        parts = [_Term(self.fitted(term.name, axis), term.factor) for term in scores if len(terms) > 1]
        mask = self._mask(tuple(masks), axis) if masks else None
        if mask is None and parts in ([], scores):
            return name
        if mask is None:
            return self._sum([*parts, *masks])
        if mask.live is not None:
            parts = [_Term(self._only_live(part.name, mask.live, axis), part.factor) for part in parts]
        return index.build.op("Add", self._sum(parts), mask.added)

    def _chosen(self, choice: NodeProto, axis: int) -> str:
        """Where(condition, scores, -3.4e38): what is masked is one number, so that a row masked whole is even."""
        index = self._index
        inputs = list(choice.input)
        for place in (1, 2):
            array = index.constant(inputs[place])
            if array is None:
                terms = self._terms(inputs[place], 1.0)
                if index.maker(inputs[place], "Where") is not None or any(self._is_mask(term, terms) for term in terms):
                    # Which of two masks is the lower one counts where nothing else is left.
                    return choice.output[0]
            elif array.dtype == np.float32 and (np.isfinite(array) & (array < MASKED)).any():
                if len(np.unique(array[array < MASKED])) > 1:
                    return choice.output[0]
                inputs[place] = index.weight(np.where(np.isinf(array), array, np.maximum(array, MASKED)))
        if inputs == list(choice.input):
            return choice.output[0]
        return index.build.op("Where", *inputs)

    def _terms(self, name: str, factor: float, depth: int = 0) -> list[_Term]:
        """The terms of a sum."""
        index = self._index
        node = index.maker(name, "Add", "Sub", "Mul", "Div") if depth < _DEEPEST else None
        if node is None:
            return [_Term(name, factor)]
        first, second = node.input
        if node.op_type in ("Add", "Sub"):
            other = factor if node.op_type == "Add" else -factor
            return [*self._terms(first, factor, depth + 1), *self._terms(second, other, depth + 1)]
        for value, by in ((first, second), (second, first)) if node.op_type == "Mul" else ((first, second),):
            number = index.scalar(by)
            if not number or index.maker(value, "Add", "Sub") is None:
                continue
            inner = self._terms(value, factor * (number if node.op_type == "Mul" else 1 / number), depth + 1)
            # Only sums of scores and masks are multiplied out, not such as (1 - mask) * -3.4e38.
            if len({term.name in self._heavy for term in inner}) == 2:
                return inner
        return [_Term(name, factor)]

    def _is_mask(self, term: _Term, terms: Sequence[_Term]) -> bool:
        """Is it added to scores and made without them, and may it be lower than what fp16 adds precisely?"""
        index = self._index
        if len(terms) < 2 or not index.is_float(term.name) or term.name in self._heavy:
            return False
        low, high = sorted(end * term.factor for end in self._bounds.of(term.name))
        if low >= _PRECISE or self._is_infinite_alone(term.name):
            return False
        return any(each.name in self._heavy for each in terms) or (high <= 0 and low > -math.inf)

    def _is_infinite_alone(self, name: str) -> bool:
        """Is it chosen of -inf and numbers that fp16 adds precisely? Such a mask fp16 holds as it is."""
        index = self._index
        names, seen = [name], {name}
        while names:
            each = names.pop()
            array, node = index.constant(each), index.maker(each)
            if array is None and node is not None and node.op_type == "ConstantOfShape":
                array = numpy_helper.to_array(attributes_of(node)["value"]) if node.attribute else np.zeros(1)
            if array is not None:
                if np.isnan(array).any() or (np.isfinite(array) & (array < _PRECISE)).any() or np.isposinf(array).any():
                    return False
            elif node is None or node.op_type not in _CHOOSES:
                return False
            elif index.is_float(each):
                names += [value for value in node.input if index.is_float(value) and value not in seen]
                seen.update(names)
        return True

    def _sum(self, terms: Sequence[_Term]) -> str:
        build = self._index.build
        total = ""
        for term in terms:
            part = term.name
            if term.factor != 1:
                part = build.op("Mul", part, self._index.weight(np.array(term.factor, np.float32)))
            total = build.op("Add", total, part) if total else part
        return total

    def _only_live(self, name: str, live: str, axis: int) -> str:
        """The scores, 0 in rows that are not live. Of a product the query, which is smaller, becomes 0."""
        index = self._index
        node = index.maker(name, "Mul", "Div", "MatMul")
        if node is not None and axis == -1:
            if node.op_type == "MatMul" and (index.rank(node.input[0]) or 0) == index.rank(name):
                return index.build.op("MatMul", index.build.op("Mul", node.input[0], live), node.input[1])
            if node.op_type != "MatMul" and index.scalar(node.input[1]) is not None:
                return index.build.op(node.op_type, self._only_live(node.input[0], live, axis), node.input[1])
        return index.build.op("Mul", name, live)

    def _mask(self, terms: tuple[_Term, ...], axis: int) -> _Mask | None:
        """The mask that a sum of terms is; None where its rank is not known, or too small for rows."""
        if (terms, axis) not in self._made:
            arrays = [self._index.constant(term.name) for term in terms]
            known = [array for array in arrays if array is not None]
            if len(known) == len(terms):
                with np.errstate(over="ignore", invalid="ignore"):
                    factors = [np.float32(term.factor) for term in terms]
                    total = sum((a * f for a, f in zip(known[1:], factors[1:], strict=True)), known[0] * factors[0])
                self._made[terms, axis] = self._constant(np.asarray(total, np.float32), axis)
            else:
                self._made[terms, axis] = self._computed(terms, axis)
        return self._made[terms, axis]

    def _constant(self, mask: NDArray[np.float32], axis: int) -> _Mask | None:
        if np.isnan(mask).any() or np.isposinf(mask).any():
            return None
        largest = mask.max(axis=axis, keepdims=True) if mask.ndim >= -axis else mask
        is_empty = np.isneginf(largest)
        with np.errstate(invalid="ignore"):
            moved = np.where(is_empty, -np.inf, np.maximum(mask - largest, MASKED))
        live = np.where(is_empty, True, np.abs(largest) < _ABSORBING)
        added = self._index.weight(moved.astype(np.float32))
        return _Mask(added, None if live.all() else self._index.weight(live.astype(np.float32)))

    def _computed(self, terms: Sequence[_Term], axis: int) -> _Mask | None:
        index, build = self._index, self._index.build
        ranks = [index.rank(term.name) for term in terms]
        known = [rank for rank in ranks if rank is not None]
        if len(known) < len(ranks) or max(known) < -axis:
            return None
        num_built = len(build.nodes)
        lowest = sum(min(end * term.factor for end in self._bounds.of(term.name)) for term in terms)
        total = self._sum(terms)
        largest = build.op("ReduceMax", total, self._index.weight(np.array([axis], np.int64)), keepdims=1)
        live = build.op("Less", build.op("Abs", largest), index.weight(np.array(_ABSORBING, np.float32)))
        limits = [index.weight(np.array(limit, np.float32)) for limit in (MASKED, 0)]
        moved = build.op("Clip", build.op("Sub", total, largest), *limits)
        if not lowest >= _LOWEST:
            infinite = index.weight(np.array(-np.inf, np.float32))
            moved = build.op("Where", build.op("Equal", total, infinite), infinite, moved)
        live = build.cast(live, TensorProto.FLOAT)
        self.wide.update(node.output[0] for node in build.nodes[num_built:])
        self._keep_makers([term.name for term in terms])
        return _Mask(moved, live)

    def _keep_makers(self, names: list[str]) -> None:
        """All that makes a mask is to compute in fp32: nothing on the way is within fp16."""
        while names:
            node = self._index.maker(names.pop())
            if node is not None and node.output[0] not in self.wide:
                self.wide.add(node.output[0])
                names += [name for name in node.input if self._index.is_float(name)]
