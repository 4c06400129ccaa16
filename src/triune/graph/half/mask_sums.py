"""Find the attention masks among the terms of a sum that a Softmax reads, and whether that is certain."""

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
"""From this absolute value on, a mask absorbs the scores: fp32 numbers are 8 apart there, so that score + mask rounds
to the mask.
"""

_PRECISE = -2048.0
"""A term that may be lower is assumed to be a mask: exp(-2048) is 0, and below -2048 fp16 represents no fractions."""

_SMALL = -16.0
"""Terms from here to 0 need no change: even in a row in which all scores get -16, fp16 rounds the sums to multiples of
1/64, and the Softmax has an error of 1/100.
"""

_DEEPEST = 8
"""The largest depth of nested sums in which terms are searched."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a sum: factor * value."""

    name: str
    factor: float


@dataclass(frozen=True, slots=True)
class SoftmaxInput:
    """How a Softmax reads a sum of scores and masks.

    Attributes:
        axis: the axis of the Softmax, counted from the end.
        softmax: the name of the Softmax's result.
        limit: the constant of a Max between the sum and the Softmax, the lowest possible score; None if there is no
            Max.
        is_finite: whether masks of -inf must become finite.
    """

    axis: int
    softmax: str
    limit: float | None
    is_finite: bool


class MaskSums:
    """Finds masks in the sums of one graph."""

    def __init__(self, index: Index, *, is_finite: bool) -> None:
        """Args:
        index: the graph's nodes and values.
        is_finite: whether masks of -inf become finite, except where a node tests the Softmax's result for NaN (Equal).
        """
        self._index = index
        self._is_finite = is_finite
        self._bounds, self._constant_sizes = Bounds(index.values), ConstantSizes(index.values)
        # The values computed from a matrix product or another operator of `NOT_IN_MASKS`.
        self._from_products: set[str] = set()
        for node in index.graph.node:
            self._bounds.learn(node)
            self._constant_sizes.learn(node)
            is_made_so = any(name in self._from_products for name in node.input) and node.op_type not in (
                "Shape",
                "Size",
            )
            if node.op_type in NOT_IN_MASKS or is_made_so:
                self._from_products.update(node.output)

    def lowest(self, terms: Sequence[Term]) -> float:
        """A lower bound of a sum of terms."""
        return sum(min(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def highest(self, terms: Sequence[Term]) -> float:
        """An upper bound of a sum of terms."""
        return sum(max(end * term.factor for end in self._bounds.of(term.name)) for term in terms)

    def masks(self, terms: Sequence[Term]) -> list[Term]:
        """The terms of a sum that are masks."""
        masks = [term for term in terms if self._is_mask(term, terms)]
        if not masks:
            return []
        # `FitMasks` may multiply rows of scores by 0, and 0 * -inf is NaN: so terms of -inf must be masks, not scores.
        return [term for term in terms if term in masks or self._is_infinite(term)]

    def softmax_inputs(self, softmax: NodeProto) -> list[tuple[str, SoftmaxInput]]:
        """Look back from a Softmax through Max and through reshapes that keep the last axis.

        Returns the name of the value before these nodes and how the Softmax reads it; [] if no node computes that
        value.
        """
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
        """The operand and the number, if the value `name` is Max(operand, number) with a number of at most -1e8; else
        None.
        """
        limit = self._index.producer(name, "Max")
        for position in (0, 1) if limit is not None and len(limit.input) == 2 else ():
            number = self._index.scalar(limit.input[position]) if limit is not None else None
            if limit is not None and number is not None and number <= -ABSORBING:
                return limit.input[1 - position], number
        return None

    def _keeps_last(self, view: NodeProto) -> bool:
        given, made = (self._index.dims(name) for name in (view.input[0], view.output[0]))
        return bool(given and made) and given is not None and made is not None and given[-1] == made[-1]

    def have_unclear_masks(self, name: str) -> bool:
        """Whether masks are hidden within the scores, or a term may be either a mask or a score.

        If so, no mask may be replaced: in a row that is masked entirely, the sum of all masks decides the result.
        """
        choice = self._index.producer(name, "Where")
        if choice is not None:
            return any(self._is_unknown(each) and each not in self._from_products for each in choice.input[1:])
        terms = self.terms(name)
        if len(terms) < 2:
            return False
        scores = [term for term in terms if not self._is_mask(term, terms)]
        is_masked = len(scores) < len(terms)
        if any(self._is_mask_in_scores(term) or (is_masked and self._is_of_infinite(term.name)) for term in scores):
            return True
        is_from_products = any(term.name in self._from_products for term in terms)
        return not is_from_products and sum(self._is_unknown(term.name) for term in scores) > 1

    def _is_mask_in_scores(self, term: Term) -> bool:
        return term.name in self._from_products and self._constant_sizes.of(term.name) * abs(term.factor) >= -_PRECISE

    def _is_of_infinite(self, name: str) -> bool:
        """Whether a value is Where(condition, scores, -inf).

        `FitMasks` may multiply the scores of a masked row by 0. It must not do so with these: -inf * 0 is NaN.
        """
        choice = self._index.producer(name, "Where")
        arrays = [self._index.constant(each) for each in choice.input[1:]] if choice is not None else []
        return any(array is not None and bool(np.isneginf(array).any()) for array in arrays)

    def _is_unknown(self, name: str) -> bool:
        """Whether a value that is not a constant may be below -2048, where fp16 represents no fractions."""
        return self._index.constant(name) is None and self._bounds.of(name)[0] < _PRECISE

    def _may_be_coarse_mask(self, name: str) -> bool:
        """Whether a value may be a mask that is computed without the scores, and whose sum with scores fp16 rounds
        coarsely.

        A mask of -inf and 0 leaves the scores as they are.
        """
        return name not in self._from_products and self._is_unknown(name) and not self._is_infinite_alone(name)

    def lose_precision(self, name: str) -> bool:
        """Whether a score is added to what may be a mask, so that fp16 rounds the sum coarsely: near -10000 to
        multiples of 8.
        """
        names, seen = [name], {name}
        while names:
            node = self._index.producer(names.pop())
            if node is None or node.op_type not in SCORE_ARITHMETIC:
                continue
            operands = [each for each in node.input if self._index.is_float(each)]
            if node.op_type in ("Add", "Sub"):
                is_input = any(self._may_be_coarse_mask(each) for each in operands)
                if is_input or any(self._constant_sizes.of(each) >= -_PRECISE for each in operands):
                    return True
            elif node.op_type == "Where" and any(self._may_be_coarse_mask(each) for each in operands):
                return True
            names += [each for each in operands if each not in seen]
            seen.update(operands)
        return False

    def terms(self, name: str, factor: float = 1.0, depth: int = 0) -> list[Term]:
        """Expand factor * value into terms: 2 * (a - b) gives 2 * a and -2 * b. Any other value is one term."""
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
            # Expand the factor only if the sum has both scores and masks. So (1 - mask) * -3.4e38 stays one term.
            if len({term.name in self._from_products for term in inner}) == 2:
                return inner
        return [Term(name, factor)]

    def _is_mask(self, term: Term, terms: Sequence[Term]) -> bool:
        """Whether a term is a mask: it is added to scores, not computed from them, and may be below -16."""
        index = self._index
        if len(terms) < 2 or not index.is_float(term.name) or term.name in self._from_products:
            return False
        low, high = sorted(end * term.factor for end in self._bounds.of(term.name))
        if low >= _SMALL or (not self._is_finite and self._is_infinite_alone(term.name)):
            return False
        return any(each.name in self._from_products for each in terms) or (high <= 0 and low > -math.inf)

    def _is_infinite(self, term: Term) -> bool:
        """Whether a term is a mask of -inf that is not computed from the scores."""
        low = min(end * term.factor for end in self._bounds.of(term.name))
        return low == -math.inf and term.name not in self._from_products and self._is_infinite_alone(term.name)

    def _is_infinite_alone(self, name: str) -> bool:
        """Whether a value is selected from -inf and numbers of at least -2048. Such a mask needs no change in fp16."""
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
