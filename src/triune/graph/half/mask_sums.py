"""Sums of scores and masks on their way to a Softmax: which terms are masks, and whether anybody can tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, numpy_helper

from triune.graph.axes import positive
from triune.graph.half.bounds import Bounds
from triune.graph.half.operators import MASK_SELECTIONS, NOT_IN_MASKS, ORDERED_RESHAPES, SCORE_ARITHMETIC
from triune.graph.half.reach import Reach
from triune.graph.index import Index
from triune.graph.values import attributes_of

ABSORBING = 1e8
"""A number from which fp32 does not tell scores apart: a score added to it is lost, since its last place is 8."""

_PRECISE = -2048.0
"""A number below is taken to be a mask, of which shares are 0."""

_SMALL = -16.0
"""A row masked whole down to here has its shares in fp16 to a hundredth, since scores are rounded to 1/64."""

_DEEPEST = 8
"""So many sums in each other are looked into."""


@dataclass(frozen=True, slots=True)
class Term:
    """A value times a number, as a part of a sum."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class End:
    """Where the scores of a Softmax are whole.

    Attributes:
        axis: of the Softmax, counted from the end.
        softmax: its result.
        limit: a number that no score is below; None where there is none.
        is_finite: are masks of -inf to become finite ones?
    """

    axis: int
    softmax: str
    limit: float | None
    is_finite: bool


class MaskSums:
    """The sums of scores and masks in one graph."""

    def __init__(self, index: Index, *, is_finite: bool) -> None:
        """With `is_finite` masks of -inf are to become finite ones, but where somebody looks for NaN."""
        self._index = index
        self._is_finite = is_finite
        self._bounds, self._reach = Bounds(index.values), Reach(index.values)
        # The values that a product of matrices or the like is among the makers of.
        self._heavy: set[str] = set()
        for node in index.graph.node:
            self._bounds.learn(node)
            self._reach.learn(node)
            is_made_so = any(name in self._heavy for name in node.input) and node.op_type not in ("Shape", "Size")
            if node.op_type in NOT_IN_MASKS or is_made_so:
                self._heavy.update(node.output)

    def lowest(self, terms: Sequence[Term]) -> float:
        """The lowest that a sum of terms can be."""
        return sum(min(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def highest(self, terms: Sequence[Term]) -> float:
        """The highest that a sum of terms can be."""
        return sum(max(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def masks(self, terms: Sequence[Term]) -> list[Term]:
        """Those of a sum's terms that are masks."""
        masks = [term for term in terms if self._is_mask(term, terms)]
        if not masks:
            return []
        # The scores of a row that fp32 loses are multiplied by 0, which makes no number of -inf.
        return [term for term in terms if term in masks or self._is_infinite(term)]

    def ends(self, softmax: NodeProto) -> list[tuple[str, End]]:
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
            view = index.maker(name, *ORDERED_RESHAPES)
            if view is None or axis != -1 or not self._keeps_last(view):
                result = softmax.output[0]
                is_caught = any(reader.op_type == "Equal" for reader in index.readers(result))
                end = End(axis, result, limit, self._is_finite and not is_caught)
                return [(name, end)] if index.maker(name) is not None else []
            name = view.input[0]
        return []

    def _limited(self, name: str) -> tuple[str, float] | None:
        """What a maximum with a mask's own number is of, and that number: no score is lost by it that fp32 tells."""
        limit = self._index.maker(name, "Max")
        for place in (0, 1) if limit is not None and len(limit.input) == 2 else ():
            number = self._index.scalar(limit.input[place]) if limit is not None else None
            if limit is not None and number is not None and number <= -ABSORBING:
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
        terms = self.terms(name)
        if len(terms) < 2:
            return False
        scores = [term for term in terms if not self._is_mask(term, terms)]
        is_masked = len(scores) < len(terms)
        if any(self._is_heavy_mask(term) or (is_masked and self._is_of_infinite(term.name)) for term in scores):
            return True
        is_heavy = any(term.name in self._heavy for term in terms)
        return not is_heavy and sum(self._is_unknown(term.name) for term in scores) > 1

    def _is_heavy_mask(self, term: Term) -> bool:
        return term.name in self._heavy and self._reach.of(term.name) * abs(term.factor) >= -_PRECISE

    def _is_of_infinite(self, name: str) -> bool:
        """Is it chosen of scores and -inf? That times 0, in a row that another mask takes whole, is NaN."""
        choice = self._index.maker(name, "Where")
        arrays = [self._index.constant(each) for each in choice.input[1:]] if choice is not None else []
        return any(array is not None and bool(np.isneginf(array).any()) for array in arrays)

    def _is_unknown(self, name: str) -> bool:
        """May it be lower than what fp16 adds precisely, for all that is known?"""
        return self._index.constant(name) is None and self._bounds.of(name)[0] < _PRECISE

    def _may_lose(self, name: str) -> bool:
        """May it be a mask, made without the scores, that takes digits from them? A mask of -inf and 0 takes none."""
        return name not in self._heavy and self._is_unknown(name) and not self._is_infinite_alone(name)

    def are_lost(self, name: str) -> bool:
        """Is a score added to a mask on the way to a Softmax, or to what may be one? The sum is rounded to 8."""
        names, seen = [name], {name}
        while names:
            node = self._index.maker(names.pop())
            if node is None or node.op_type not in SCORE_ARITHMETIC:
                continue
            operands = [each for each in node.input if self._index.is_float(each)]
            if node.op_type in ("Add", "Sub"):
                is_given = any(self._may_lose(each) for each in operands)
                if is_given or any(self._reach.of(each) >= -_PRECISE for each in operands):
                    return True
            elif node.op_type == "Where" and any(self._may_lose(each) for each in operands):
                return True
            names += [each for each in operands if each not in seen]
            seen.update(operands)
        return False

    def terms(self, name: str, factor: float = 1.0, depth: int = 0) -> list[Term]:
        """The terms of a sum."""
        index = self._index
        node = index.maker(name, "Add", "Sub", "Mul", "Div") if depth < _DEEPEST else None
        if node is None:
            return [Term(name, factor)]
        first, second = node.input
        if node.op_type in ("Add", "Sub"):
            other = factor if node.op_type == "Add" else -factor
            return [*self.terms(first, factor, depth + 1), *self.terms(second, other, depth + 1)]
        for value, by in ((first, second), (second, first)) if node.op_type == "Mul" else ((first, second),):
            number = index.scalar(by)
            if not number or index.maker(value, "Add", "Sub") is None:
                continue
            inner = self.terms(value, factor * (number if node.op_type == "Mul" else 1 / number), depth + 1)
            # Only sums of scores and masks are multiplied out, not such as (1 - mask) * -3.4e38.
            if len({term.name in self._heavy for term in inner}) == 2:
                return inner
        return [Term(name, factor)]

    def _is_mask(self, term: Term, terms: Sequence[Term]) -> bool:
        """Is it added to scores and made without them, and may it be lower than what fp16 adds precisely to all?"""
        index = self._index
        if len(terms) < 2 or not index.is_float(term.name) or term.name in self._heavy:
            return False
        low, high = sorted(end * term.factor for end in self._bounds.of(term.name))
        if low >= _SMALL or (not self._is_finite and self._is_infinite_alone(term.name)):
            return False
        return any(each.name in self._heavy for each in terms) or (high <= 0 and low > -math.inf)

    def _is_infinite(self, term: Term) -> bool:
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
            elif node is None or node.op_type not in MASK_SELECTIONS:
                return False
            elif index.is_float(each):
                names += [value for value in node.input if index.is_float(value) and value not in seen]
                seen.update(names)
        return True
