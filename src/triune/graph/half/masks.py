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
from triune.graph.half.reach import Reach
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

_SUMMED = _VIEWS | {"Add", "Sub", "Mul", "Div", "Neg", "Where", "Transpose", "Cast", "Slice", "Expand"}
"""Operators of which scores are made that are scaled, masked and summed."""

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


@dataclass(frozen=True, slots=True)
class FittedMasks:
    """What is to compute in fp32 for the sake of masks, each node by its first result.

    Attributes:
        wide: nodes that make masks.
        softmaxes: those of whose sums of masks no mask could be made that fp16 holds.
    """

    wide: frozenset[str] = frozenset()
    softmaxes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _End:
    """Where the scores of a Softmax are whole.

    Attributes:
        axis: of the Softmax, counted from the end.
        softmax: its result.
        limit: a number that no score is below; None where there is none.
    """

    axis: int
    softmax: str
    limit: float | None


def fit_masks(model: ModelProto) -> FittedMasks:
    """Given Softmax of scores and masks of -3.4e38, -1e9 and their like. Result: masks of -30000.

    A row of the Softmax does not change when one number is added to all of it. So the largest number of each row of the
    mask is subtracted from that row, in fp32, and what is left is cut off at `MASKED`, which fp16 holds: a row masked
    whole by -10000 has the shares of its scores, as in fp32. Where the largest is beyond 1e8 fp32 itself loses the
    scores, and its shares are equal: such rows of scores are multiplied by 0. -inf stays -inf, which fp16 has.

    Args:
        model: normalized and narrowed; changed. New values have no types yet. Graphs within its nodes stay as they are.

    Returns:
        the nodes that are to compute in fp32.
    """
    index = Index(model.graph, "half/masks")
    bounds, reach = Bounds(index.values), Reach(index.values)
    for node in model.graph.node:
        bounds.learn(node)
        reach.learn(node)
    masks = _Masks(index, bounds, reach)
    ends = {name: end for node in model.graph.node for name, end in masks.ends(node)}
    nodes: list[NodeProto] = []
    softmaxes: set[str] = set()
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0] if node.output else ""
        if name not in ends:
            continue
        result = name if masks.are_unclear(name) else masks.fitted(name, ends[name])
        if result == name and masks.are_lost(name):
            softmaxes.add(ends[name].softmax)
        nodes[-1:-1] = index.take()
        if result != name:
            nodes[-1] = helper.make_node("Identity", [result], [name], name=f"{result}/given")
    index.replace(nodes)
    return FittedMasks(frozenset(masks.wide), frozenset(softmaxes))


class _Masks:
    """The sums of scores and masks in one graph; each mask is made once.

    Attributes:
        wide: the first results of the nodes that make masks.
    """

    def __init__(self, index: Index, bounds: Bounds, reach: Reach) -> None:
        self._index = index
        self._bounds = bounds
        self._reach = reach
        self.wide: set[str] = set()
        self._made: dict[tuple[tuple[_Term, ...], int, float | None], _Mask | None] = {}
        # The values that a product of matrices or the like is among the makers of.
        self._heavy: set[str] = set()
        for node in index.graph.node:
            is_made_so = any(name in self._heavy for name in node.input) and node.op_type not in ("Shape", "Size")
            if node.op_type in _HEAVY or is_made_so:
                self._heavy.update(node.output)

    def ends(self, softmax: NodeProto) -> list[tuple[str, _End]]:
        """What a Softmax is of, before reshapes that leave its last axis alone."""
        index = self._index
        if softmax.op_type != "Softmax":
            return []
        name = softmax.input[0]
        rank = index.rank(name)
        if not rank:
            return []
        axis = positive(int(attributes_of(softmax).get("axis", -1)), rank) - rank
        limit: float | None = None
        while index.only_reader(name) is not None:
            limited = self._limited(name)
            if limited is not None:
                name, least = limited
                limit = least if limit is None else max(limit, least)
                continue
            view = index.maker(name, *_VIEWS)
            if view is None or axis != -1 or not self._keeps_last(view):
                end = _End(axis, softmax.output[0], limit)
                return [(name, end)] if index.maker(name) is not None else []
            name = view.input[0]
        return []

    def _limited(self, name: str) -> tuple[str, float] | None:
        """What a maximum with a mask's own number is of, and that number: no score is lost by it that fp32 tells."""
        limit = self._index.maker(name, "Max")
        for place in (0, 1) if limit is not None and len(limit.input) == 2 else ():
            number = self._index.scalar(limit.input[place]) if limit is not None else None
            if limit is not None and number is not None and number <= -_ABSORBING:
                return limit.input[1 - place], number
        return None

    def _keeps_last(self, view: NodeProto) -> bool:
        given, made = (self._index.dims(name) for name in (view.input[0], view.output[0]))
        return bool(given and made) and given is not None and made is not None and given[-1] == made[-1]

    def are_unclear(self, name: str) -> bool:
        """Are there masks among the scores, or numbers of which nobody knows whether they are masks or scores?

        In rows masked whole the sum of several masks counts, and the order that it gives.
        """
        choice = self._index.maker(name, "Where")
        if choice is not None:
            return any(self._is_unknown(each) and each not in self._heavy for each in choice.input[1:])
        terms = self._terms(name, 1.0)
        if len(terms) < 2:
            return False
        scores = [term for term in terms if not self._is_mask(term, terms)]
        if any(self._is_heavy_mask(term) for term in scores):
            return True
        is_heavy = any(term.name in self._heavy for term in terms)
        return not is_heavy and sum(self._is_unknown(term.name) for term in scores) > 1

    def _is_heavy_mask(self, term: _Term) -> bool:
        return term.name in self._heavy and self._reach.of(term.name) * abs(term.factor) >= -_PRECISE

    def _is_unknown(self, name: str) -> bool:
        """May it be lower than what fp16 adds precisely, for all that is known?"""
        return self._index.constant(name) is None and self._bounds.of(name)[0] < _PRECISE

    def are_lost(self, name: str) -> bool:
        """Is a score added to a mask on the way to a Softmax, or to what may be one? The sum is rounded to 8."""
        names, seen = [name], {name}
        while names:
            node = self._index.maker(names.pop())
            if node is None or node.op_type not in _SUMMED:
                continue
            operands = [each for each in node.input if self._index.is_float(each)]
            if node.op_type in ("Add", "Sub"):
                is_given = [each not in self._heavy and self._is_unknown(each) for each in operands]
                if all(is_given) or any(self._reach.of(each) >= -_PRECISE for each in operands):
                    return True
            elif node.op_type == "Where" and any(
                each not in self._heavy and self._is_unknown(each) for each in operands
            ):
                return True
            names += [each for each in operands if each not in seen]
            seen.update(operands)
        return False

    def fitted(self, name: str, end: _End) -> str:
        """The same value, but for a number in each row, with masks that fp16 holds; `name` where nothing is to do."""
        index = self._index
        choice = index.maker(name, "Where")
        if choice is not None:
            return self._chosen(choice, end)
        terms = self._terms(name, 1.0)
        masks = [term for term in terms if self._is_mask(term, terms)]
        if masks:
            # The scores of a row that fp32 loses are multiplied by 0, which makes no number of -inf.
            masks = [term for term in terms if term in masks or self._is_infinite(term)]
        scores = [term for term in terms if term not in masks]
        if not scores:
            return name
        parts = [_Term(self.fitted(term.name, end), term.factor) for term in scores if len(terms) > 1]
        mask = self._mask(tuple(masks), end) if masks else None
        if mask is None and parts in ([], scores):
            return name
        if mask is None:
            return self._sum([*parts, *masks])
        if mask.live is not None:
            parts = [_Term(self._only_live(part.name, mask.live, end.axis), part.factor) for part in parts]
        return index.build.op("Add", self._sum(parts), mask.added)

    def _chosen(self, choice: NodeProto, end: _End) -> str:
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
            elif (
                array.dtype == np.float32 and ((np.isfinite(array) | (end.limit is not None)) & (array < MASKED)).any()
            ):
                if len(np.unique(array[array < MASKED])) > 1:
                    return choice.output[0]
                is_kept = np.isinf(array) & (end.limit is None)
                inputs[place] = index.weight(np.where(is_kept, array, np.maximum(array, MASKED)))
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

    def _is_infinite(self, term: _Term) -> bool:
        """May it be -inf, not being of the scores?"""
        low = min(end * term.factor for end in self._bounds.of(term.name))
        return low == -math.inf and term.name not in self._heavy and self._is_infinite_alone(term.name)

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

    def _mask(self, terms: tuple[_Term, ...], end: _End) -> _Mask | None:
        """The mask that a sum of terms is; None where its rank is not known, or too small for rows."""
        key = terms, end.axis, end.limit
        if key not in self._made:
            arrays = [self._index.constant(term.name) for term in terms]
            known = [array for array in arrays if array is not None]
            if len(known) == len(terms):
                with np.errstate(over="ignore", invalid="ignore"):
                    factors = [np.float32(term.factor) for term in terms]
                    total = sum((a * f for a, f in zip(known[1:], factors[1:], strict=True)), known[0] * factors[0])
                    total = total if end.limit is None else np.maximum(total, end.limit)
                self._made[key] = self._constant(np.asarray(total, np.float32), end.axis)
            else:
                self._made[key] = self._computed(terms, end)
        return self._made[key]

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

    def _computed(self, terms: Sequence[_Term], end: _End) -> _Mask | None:
        axis = end.axis
        index, build = self._index, self._index.build
        ranks = [index.rank(term.name) for term in terms]
        known = [rank for rank in ranks if rank is not None]
        if len(known) < len(ranks) or max(known) < -axis:
            return None
        num_built = len(build.nodes)
        lowest = sum(min(end * term.factor for end in self._bounds.of(term.name)) for term in terms)
        total = self._sum(terms)
        if end.limit is not None:
            total = build.op("Max", total, index.weight(np.array(end.limit, np.float32)))
        largest = build.op("ReduceMax", total, self._index.weight(np.array([axis], np.int64)), keepdims=1)
        live = build.op("Less", build.op("Abs", largest), index.weight(np.array(_ABSORBING, np.float32)))
        limits = [index.weight(np.array(limit, np.float32)) for limit in (MASKED, 0)]
        moved = build.op("Clip", build.op("Sub", total, largest), *limits)
        if end.limit is None and not lowest >= _LOWEST:
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
