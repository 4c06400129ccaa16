"""Replace attention masks that fp16 cannot represent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from triune.graph.half.mask_sums import ABSORBING, MaskSums, SoftmaxInput, Term
from triune.graph.index import Index
from triune.graph.passes.run import GraphPass

MASKED = -30_000.0
"""The value of a mask in fp16: exp(-30000) is 0, and the sum of two such masks, -60000, is still within fp16."""

_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class _Mask:
    """A mask that replaces one that fp16 cannot represent.

    Attributes:
        added: the name of the value that is added to the scores.
        live: the name of a factor for each row of scores: 0 in rows in which score + mask is the mask alone in fp32, so
            that the Softmax is uniform, 1 in the others; None if it is 1 in all rows.
    """

    added: str
    live: str | None


class FitMasks(GraphPass):
    """Given Softmax(scores + mask) with masks of -3.4e38, -1e9 and the like. Result: the same with masks of -30000.

    Softmax(x) = Softmax(x + c) for each row. So the mask becomes max(mask - max(mask), -30000), row by row and in fp32:
    a row that is masked entirely by -10000 keeps the Softmax of its scores. If |max(mask)| is 1e8 or more, score + mask
    rounds to the mask even in fp32, and its Softmax is uniform: the scores of such rows are multiplied by 0. -inf stays
    -inf, which fp16 has.

    Subgraphs stay as they are.

    Attributes:
        wide: the names of the first results of the nodes that compute masks and must do so in fp32; set by the run.
        softmaxes: the names of the results of Softmax nodes whose masks could not be replaced, so that they must
            compute in fp32; set by the run.
    """

    name = "fit_masks"

    def __init__(self, *, is_finite: bool = False) -> None:
        """If `is_finite`, masks of -inf become -30000 too, except if the model itself replaces NaN in the Softmax's
        result. Then the Softmax of a row that is masked entirely by -inf is uniform, not NaN.
        """
        self._is_finite = is_finite
        self.wide: frozenset[str] = frozenset()
        self.softmaxes: frozenset[str] = frozenset()

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace attention masks in `model`, in place, that fp16 cannot represent.

        `model` must be normalized and narrowed. New values have no types yet.
        """
        index = Index(model.graph, "half/masks")
        sums = MaskSums(index, is_finite=self._is_finite)
        masks = _Masks(index, sums)
        softmax_inputs = {name: end for node in model.graph.node for name, end in sums.softmax_inputs(node)}
        nodes: list[NodeProto] = []
        softmaxes: set[str] = set()
        for node in model.graph.node:
            nodes.append(node)
            name = node.output[0] if node.output else ""
            if name not in softmax_inputs:
                continue
            result = name if sums.have_unclear_masks(name) else masks.with_fitted_masks(name, softmax_inputs[name])
            if result == name and sums.lose_precision(name):
                softmaxes.add(softmax_inputs[name].softmax)
            nodes[-1:-1] = index.take()
            if result != name:
                nodes[-1] = helper.make_node("Identity", [result], [name], name=f"{result}/given")
        index.replace(nodes)
        self.wide, self.softmaxes = frozenset(masks.wide), frozenset(softmaxes)
        return model


class _Masks:
    """Replaces the masks in one graph. Softmaxes with equal masks share one new mask.

    Attributes:
        wide: the names of the first results of the nodes that compute masks.
    """

    def __init__(self, index: Index, sums: MaskSums) -> None:
        self._index = index
        self._sums = sums
        self.wide: set[str] = set()
        self._made: dict[tuple[tuple[Term, ...], int, float | None, bool], _Mask | None] = {}

    def with_fitted_masks(self, name: str, end: SoftmaxInput) -> str:
        """Build scores whose Softmax equals the Softmax of `name`, with masks that fp16 can represent. Returns their
        name, which is `name` if nothing needs to change.
        """
        index = self._index
        choice = index.producer(name, "Where")
        if choice is not None:
            return self._fitted_where(choice, end)
        terms = self._sums.terms(name)
        masks = self._sums.masks(terms)
        scores = [term for term in terms if term not in masks]
        if not scores:
            return name
        parts = [Term(self.with_fitted_masks(term.name, end), term.factor) for term in scores if len(terms) > 1]
        mask = self._mask(tuple(masks), end) if masks else None
        if mask is None and parts in ([], scores):
            return name
        if mask is None:
            return self._sum([*parts, *masks])
        if mask.live is not None:
            parts = [Term(self._times_live(part.name, mask.live, end.axis), part.factor) for part in parts]
        return index.build.op("Add", self._sum(parts), mask.added)

    def _fitted_where(self, choice: NodeProto, end: SoftmaxInput) -> str:
        """Build Where(condition, scores, -30000) from Where(condition, scores, -3.4e38). The Softmax of a row that is
        masked entirely stays uniform.
        """
        index = self._index
        inputs = list(choice.input)
        is_limited = end.limit is not None or end.is_finite
        for position in (1, 2):
            array = index.constant(inputs[position])
            if array is None:
                is_chosen_again = index.producer(inputs[position], "Where") is not None
                if is_chosen_again or self._sums.masks(self._sums.terms(inputs[position])):
                    # Keep a Where whose scores have another mask. In a row that both masks hide entirely, the mask with
                    # the larger numbers decides; if all of them became -30000, neither would.
                    return choice.output[0]
            elif array.dtype == np.float32 and ((np.isfinite(array) | is_limited) & (array < MASKED)).any():
                if len(np.unique(array[array < MASKED])) > 1:
                    return choice.output[0]
                is_kept = np.isinf(array) & (not is_limited)
                inputs[position] = index.weight(np.where(is_kept, array, np.maximum(array, MASKED)))
        if inputs == list(choice.input):
            return choice.output[0]
        return index.build.op("Where", *inputs)

    def _sum(self, terms: Sequence[Term]) -> str:
        build = self._index.build
        total = ""
        for term in terms:
            part = term.name
            if term.factor != 1:
                part = build.op("Mul", part, self._index.weight(np.array(term.factor, np.float32)))
            total = build.op("Add", total, part) if total else part
        return total

    def _times_live(self, name: str, live: str, axis: int) -> str:
        """Multiply the rows of the scores `name` by `live`, a factor of 0 or 1 for each row. If the scores are q @ k,
        multiply q, which is smaller.
        """
        index = self._index
        node = index.producer(name, "Mul", "Div", "MatMul")
        if node is not None and axis == -1:
            if node.op_type == "MatMul" and (index.rank(node.input[0]) or 0) == index.rank(name):
                return index.build.op("MatMul", index.build.op("Mul", node.input[0], live), node.input[1])
            if node.op_type != "MatMul" and index.scalar(node.input[1]) is not None:
                return index.build.op(node.op_type, self._times_live(node.input[0], live, axis), node.input[1])
        return index.build.op("Mul", name, live)

    def _mask(self, terms: tuple[Term, ...], end: SoftmaxInput) -> _Mask | None:
        """Build the new mask for a sum of masks; None if its rank is not known or too small for the Softmax's axis, or
        if a constant mask has NaN or +inf.
        """
        key = terms, end.axis, end.limit, end.is_finite
        if key not in self._made:
            arrays = [self._index.constant(term.name) for term in terms]
            known = [array for array in arrays if array is not None]
            if len(known) == len(terms):
                with np.errstate(over="ignore", invalid="ignore"):
                    factors = [np.float32(term.factor) for term in terms]
                    total = sum((a * f for a, f in zip(known[1:], factors[1:], strict=True)), known[0] * factors[0])
                    total = total if end.limit is None else np.maximum(total, end.limit)
                self._made[key] = self._constant_mask(np.asarray(total, np.float32), end)
            else:
                self._made[key] = self._built_mask(terms, end)
        return self._made[key]

    def _constant_mask(self, mask: NDArray[np.float32], end: SoftmaxInput) -> _Mask | None:
        if np.isnan(mask).any() or np.isposinf(mask).any():
            return None
        largest = mask.max(axis=end.axis, keepdims=True) if mask.ndim >= -end.axis else mask
        is_empty = np.isneginf(largest) & (not end.is_finite)
        with np.errstate(invalid="ignore"):
            moved = np.maximum(mask - np.maximum(largest, _LOWEST), MASKED)
        moved = np.where(is_empty, -np.inf, moved)
        live = is_empty | (np.abs(largest) < ABSORBING)
        added = self._index.weight(moved.astype(np.float32))
        return _Mask(added, None if live.all() else self._index.weight(live.astype(np.float32)))

    def _built_mask(self, terms: Sequence[Term], end: SoftmaxInput) -> _Mask | None:
        axis = end.axis
        index, build = self._index, self._index.build
        ranks = [index.rank(term.name) for term in terms]
        known = [rank for rank in ranks if rank is not None]
        if len(known) < len(ranks) or max(known) < -axis:
            return None
        num_built = len(build.nodes)
        lowest = self._sums.lowest(terms)
        total = self._sum(terms)
        if end.limit is not None:
            total = build.op("Max", total, index.weight(np.array(end.limit, np.float32)))
        largest = build.op("ReduceMax", total, self._index.weight(np.array([axis], np.int64)), keepdims=1)
        if end.is_finite and not lowest >= _LOWEST:
            largest = build.op("Max", largest, index.weight(np.array(_LOWEST, np.float32)))
        live: str | None = None
        if not (lowest > -ABSORBING and self._sums.highest(terms) < ABSORBING):
            live = build.op("Less", build.op("Abs", largest), index.weight(np.array(ABSORBING, np.float32)))
        limits = [index.weight(np.array(limit, np.float32)) for limit in (MASKED, 0)]
        moved = build.op("Clip", build.op("Sub", total, largest), *limits)
        if end.limit is None and not end.is_finite and not lowest >= _LOWEST:
            infinite = index.weight(np.array(-np.inf, np.float32))
            moved = build.op("Where", build.op("Equal", total, infinite), infinite, moved)
        live = None if live is None else build.cast(live, TensorProto.FLOAT)
        self.wide.update(node.output[0] for node in build.nodes[num_built:])
        self._keep_producers([term.name for term in terms])
        return _Mask(moved, live)

    def _keep_producers(self, names: list[str]) -> None:
        """Add to `wide` all nodes that compute the float values of the masks `names`, back to the inputs: these values
        are beyond fp16.
        """
        while names:
            node = self._index.producer(names.pop())
            if node is not None and node.output[0] not in self.wide:
                self.wide.add(node.output[0])
                names += [name for name in node.input if self._index.is_float(name)]
