"""Find which terms of a sum that a Softmax reads are masks, and whether that is certain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, numpy_helper

from triune.graph.axes import positive
from triune.graph.half.bounds import Bounds
from triune.graph.half.constant_sizes import ConstantSizes
from triune.graph.half.operators import MASK_SELECTIONS, NOT_IN_MASKS, ORDERED_RESHAPES, SCORE_ARITHMETIC
from triune.graph.index import Index
from triune.graph.values import attributes_of

ABSORBING = 1e8
"""The sum of a score and a number as large as this is that number in fp32, whose last digit is worth 8 there."""

_PRECISE = -2048.0
"""A lower number is taken for a mask: the Softmax of a score with it is 0."""

_SMALL = -16.0
"""A row of scores that is masked entirely by this has its Softmax to 1/100 in fp16, which rounds them to 1/64."""

_DEEPEST = 8
"""The depth to which nested sums are followed."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a sum: factor * value."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class SoftmaxInput:
    """The scores that a Softmax reads, with all masks added.

    Attributes:
        axis: the axis of the Softmax, counted from the end.
        softmax: the result of the Softmax.
        limit: the lowest possible score, which a Max sets; None where there is no Max.
        is_finite: whether masks of -inf must become finite.
    """

    axis: int
    softmax: str
    limit: float | None
    is_finite: bool


class MaskSums:
    """The sums of scores and masks in one graph."""

    def __init__(self, index: Index, *, is_finite: bool) -> None:
        """Args:
        index: of the graph.
        is_finite: masks of -inf become finite, except where a node tests the Softmax's result for NaN (Equal).
        """
        self._index = index
        self._is_finite = is_finite
        self._bounds, self._constant_sizes = Bounds(index.values), ConstantSizes(index.values)
        # The values computed from a matrix product or another operator of `NOT_IN_MASKS`.
        self._heavy: set[str] = set()
        for node in index.graph.node:
            self._bounds.learn(node)
            self._constant_sizes.learn(node)
            is_made_so = any(name in self._heavy for name in node.input) and node.op_type not in ("Shape", "Size")
            if node.op_type in NOT_IN_MASKS or is_made_so:
                self._heavy.update(node.output)

    def lowest(self, terms: Sequence[Term]) -> float:
        """The lower limit of a sum of terms."""
        return sum(min(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def highest(self, terms: Sequence[Term]) -> float:
        """The upper limit of a sum of terms."""
        return sum(max(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def masks(self, terms: Sequence[Term]) -> list[Term]:
        """The terms of a sum that are masks."""
        masks = [term for term in terms if self._is_mask(term, terms)]
        if not masks:
            return []
        # Rows of scores that fp32 loses are multiplied by 0, and 0 * -inf is NaN: -inf counts as a mask then.
        return [term for term in terms if term in masks or self._is_infinite(term)]

    def ends(self, softmax: NodeProto) -> list[tuple[str, SoftmaxInput]]:
        """The value that a Softmax reads, before reshapes that keep the last axis; [] where it is not computed."""
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
            view = index.producer(name, *ORDERED_RESHAPES)
            if view is None or axis != -1 or not self._keeps_last(view):
                result = softmax.output[0]
                is_caught = any(reader.op_type == "Equal" for reader in index.readers(result))
                end = SoftmaxInput(axis, result, limit, self._is_finite and not is_caught)
                return [(name, end)] if index.producer(name) is not None else []
            name = view.input[0]
        return []

    def _limited(self, name: str) -> tuple[str, float] | None:
        """The operand and the number, if `name` is Max(operand, number) with a number as low as a mask; else None."""
        limit = self._index.producer(name, "Max")
        for position in (0, 1) if limit is not None and len(limit.input) == 2 else ():
            number = self._index.scalar(limit.input[position]) if limit is not None else None
            if limit is not None and number is not None and number <= -ABSORBING:
                return limit.input[1 - position], number
        return None

    def _keeps_last(self, view: NodeProto) -> bool:
        given, made = (self._index.dims(name) for name in (view.input[0], view.output[0]))
        return bool(given and made) and given is not None and made is not None and given[-1] == made[-1]

    def are_unclear(self, name: str) -> bool:
        """Whether there are masks within the scores, or terms that may be either masks or scores.

        In a row that is masked entirely the sum of all masks decides the order of the elements.
        """
        choice = self._index.producer(name, "Where")
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
        return term.name in self._heavy and self._constant_sizes.of(term.name) * abs(term.factor) >= -_PRECISE

    def _is_of_infinite(self, name: str) -> bool:
        """Whether a value is a Where of scores and -inf.

        In a row that another mask masks entirely, -inf times 0 is NaN.
        """
        choice = self._index.producer(name, "Where")
        arrays = [self._index.constant(each) for each in choice.input[1:]] if choice is not None else []
        return any(array is not None and bool(np.isneginf(array).any()) for array in arrays)

    def _is_unknown(self, name: str) -> bool:
        """Whether a computed value may be lower than the numbers that fp16 adds precisely."""
        return self._index.constant(name) is None and self._bounds.of(name)[0] < _PRECISE

    def _may_lose(self, name: str) -> bool:
        """Whether a value may be a mask, computed without the scores, that rounds them.

        A mask of -inf and 0 rounds nothing.
        """
        return name not in self._heavy and self._is_unknown(name) and not self._is_infinite_alone(name)

    def are_lost(self, name: str) -> bool:
        """Whether a score is added to what may be a mask, so that fp16 rounds the sum to a multiple of 8."""
        names, seen = [name], {name}
        while names:
            node = self._index.producer(names.pop())
            if node is None or node.op_type not in SCORE_ARITHMETIC:
                continue
            operands = [each for each in node.input if self._index.is_float(each)]
            if node.op_type in ("Add", "Sub"):
                is_given = any(self._may_lose(each) for each in operands)
                if is_given or any(self._constant_sizes.of(each) >= -_PRECISE for each in operands):
                    return True
            elif node.op_type == "Where" and any(self._may_lose(each) for each in operands):
                return True
            names += [each for each in operands if each not in seen]
            seen.update(operands)
        return False

    def terms(self, name: str, factor: float = 1.0, depth: int = 0) -> list[Term]:
        """The terms of the sum that a value is, each multiplied by `factor`."""
        index = self._index
        node = index.producer(name, "Add", "Sub", "Mul", "Div") if depth < _DEEPEST else None
        if node is None:
            return [Term(name, factor)]
        first, second = node.input
        if node.op_type in ("Add", "Sub"):
            other = factor if node.op_type == "Add" else -factor
            return [*self.terms(first, factor, depth + 1), *self.terms(second, other, depth + 1)]
        for value, by in ((first, second), (second, first)) if node.op_type == "Mul" else ((first, second),):
            number = index.scalar(by)
            if not number or index.producer(value, "Add", "Sub") is None:
                continue
            inner = self.terms(value, factor * (number if node.op_type == "Mul" else 1 / number), depth + 1)
            # Only sums of scores and masks are expanded, not (1 - mask) * -3.4e38.
            if len({term.name in self._heavy for term in inner}) == 2:
                return inner
        return [Term(name, factor)]

    def _is_mask(self, term: Term, terms: Sequence[Term]) -> bool:
        """Whether a term is added to scores, computed without them, and perhaps lower than what fp16 adds precisely."""
        index = self._index
        if len(terms) < 2 or not index.is_float(term.name) or term.name in self._heavy:
            return False
        low, high = sorted(end * term.factor for end in self._bounds.of(term.name))
        if low >= _SMALL or (not self._is_finite and self._is_infinite_alone(term.name)):
            return False
        return any(each.name in self._heavy for each in terms) or (high <= 0 and low > -math.inf)

    def _is_infinite(self, term: Term) -> bool:
        """Whether a term may be -inf, and is computed without the scores."""
        low = min(end * term.factor for end in self._bounds.of(term.name))
        return low == -math.inf and term.name not in self._heavy and self._is_infinite_alone(term.name)

    def _is_infinite_alone(self, name: str) -> bool:
        """Whether a value is selected from -inf and numbers that fp16 adds precisely. Such a mask needs no change."""
        index = self._index
        names, seen = [name], {name}
        while names:
            each = names.pop()
            array, node = index.constant(each), index.producer(each)
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
