"""Norms that stay in fp16 however large what they normalize is."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.ane.index import Index
from triune.graph.half.limits import SMALLEST_NORMAL
from triune.graph.values import attributes_of


def fit_norms(model: ModelProto, keep: Collection[str] = (), *, of_halves_alone: bool = False) -> None:
    """Given z / sqrt(mean(z^2) + epsilon), of z = x or x - mean(x). Result: the same of z / m, where m = max(|x|).

    A square of more than 256 is beyond fp16, and in fp32 a norm is off the Neural Engine. No element of y = x / m is
    beyond 1, so no sum of squares is beyond their number. The largest is 1, so the mean of y^2 is at least one part of
    their number, which fp16 has; a variance is as small a part of m^2 as x, in fp16, tells apart. Epsilon is divided by
    m^2, as (sqrt(epsilon) / m)^2: m is at least sqrt(epsilon), so that nothing here divides by 0. What else reads the
    root or its inverse has it times or by m.

    Args:
        model: normalized and narrowed; changed. New values have no types yet. Graphs within its nodes stay as they are.
        keep: nodes and operators that the user keeps in fp32: norms of them stay as they are.
        of_halves_alone: only norms of values that are of fp16 in the model itself.
    """
    index = Index(model.graph, "half/norms")
    norms = _Norms(index, keep, of_halves_alone=of_halves_alone)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        is_made = norms.fit(node)
        nodes += index.take()
        if not is_made:
            nodes.append(node)
    index.replace(nodes)


@dataclass(frozen=True, slots=True)
class _Part:
    """A value of a norm, divided by a power of m.

    Attributes:
        name: the value that fp16 holds.
        of: what is normalized, as the graph has it.
        normal: that divided by m.
        largest: m.
    """

    name: str
    of: str
    normal: str
    largest: str


class _Norms:
    """The norms of one graph, node by node in their order."""

    def __init__(self, index: Index, keep: Collection[str], *, of_halves_alone: bool) -> None:
        self._index = index
        self._keep = frozenset(keep)
        self._of_halves_alone = of_halves_alone
        self._sums: dict[str, _Part] = {}
        self._roots: dict[str, _Part] = {}
        self._inverses: dict[str, _Part] = {}

    def fit(self, node: NodeProto) -> bool:
        """Is it a part of a norm, which is built in place of it?"""
        match node.op_type:
            case "Add":
                self._begin(node)
            case "Sqrt" if node.input[0] in self._sums:
                return self._root(node, self._sums[node.input[0]])
            case "Pow" if node.input[0] in self._sums:
                return self._power(node, self._sums[node.input[0]])
            case "Reciprocal" if node.input[0] in self._roots:
                return self._invert(node, self._roots[node.input[0]])
            case "Div" if node.input[1] in self._roots:
                return self._divide(node, self._roots[node.input[1]])
            case "Mul":
                return self._multiply(node)
            case _:
                pass
        return False

    def _begin(self, total: NodeProto) -> None:
        """The mean of the squares and epsilon are built beside `total`, if it is such a sum."""
        index, build = self._index, self._index.build
        for place in (0, 1):
            epsilon = index.scalar(total.input[1 - place])
            mean = index.maker(total.input[place], "ReduceMean")
            squared = None if mean is None else self._squared(mean)
            if epsilon is None or epsilon <= 0 or mean is None or squared is None:
                continue
            if self._of_halves_alone and index.dtype(squared) != np.float16:
                return
            parts = [index.maker(mean.input[0]), mean, total, *index.readers(total.output[0])]
            if any(self._keep & {part.name, part.op_type} for part in parts if part is not None):
                return
            x = self._centred(squared, mean)
            axes = mean.input[1]
            least = max(math.sqrt(epsilon), SMALLEST_NORMAL)
            number = index.dtype(squared).type
            sizes = build.op("ReduceMax", build.op("Abs", x or squared), axes, keepdims=1)
            largest = build.op("Max", sizes, index.weight(np.array(least, number)))
            normal = build.op("Div", x or squared, largest)
            if x:
                normal = build.op("Sub", normal, build.op("ReduceMean", normal, axes, keepdims=1))
            variance = build.op("ReduceMean", build.op("Mul", normal, normal), axes, keepdims=1)
            ratio = build.op("Div", index.weight(np.array(least, number)), largest)
            added = build.op("Mul", ratio, ratio)
            share = max(epsilon / least**2, SMALLEST_NORMAL)
            if not math.isclose(share, 1):
                added = build.op("Mul", added, index.weight(np.array(share, number)))
            self._sums[total.output[0]] = _Part(build.op("Add", variance, added), squared, normal, largest)
            return

    def _squared(self, mean: NodeProto) -> str | None:
        """What it is the mean of the squares of, over known axes that it keeps."""
        index = self._index
        square = index.maker(mean.input[0], "Mul", "Pow")
        if square is None or not attributes_of(mean).get("keepdims", 1) or not index.ints(mean, 1):
            return None
        is_square = (
            square.input[0] == square.input[1] if square.op_type == "Mul" else index.scalar(square.input[1]) == 2
        )
        return square.input[0] if is_square else None

    def _centred(self, name: str, mean: NodeProto) -> str:
        """The value that `name` is without its mean over the same axes; "" where it is no such."""
        centred = self._index.maker(name, "Sub")
        middle = None if centred is None else self._index.maker(centred.input[1], "ReduceMean")
        if centred is None or middle is None or middle.input[0] != centred.input[0]:
            return ""
        is_alike = attributes_of(middle).get("keepdims", 1) and self._axes(middle) == self._axes(mean)
        return centred.input[0] if is_alike else ""

    def _axes(self, mean: NodeProto) -> Sequence[int] | None:
        rank = self._index.rank(mean.input[0])
        return None if rank is None else sorted(axis % rank for axis in self._index.ints(mean, 1) or ())

    def _root(self, node: NodeProto, part: _Part) -> bool:
        build = self._index.build
        root = build.op("Sqrt", part.name)
        build.put("Mul", [root, part.largest], [node.output[0]])
        self._roots[node.output[0]] = _Part(root, part.of, part.normal, part.largest)
        return True

    def _power(self, node: NodeProto, part: _Part) -> bool:
        power = self._index.scalar(node.input[1])
        if power == 0.5:
            return self._root(node, part)
        if power != -0.5:
            return False
        root = self._index.build.op("Sqrt", part.name)
        return self._invert(node, _Part(root, part.of, part.normal, part.largest))

    def _invert(self, node: NodeProto, root: _Part) -> bool:
        build = self._index.build
        inverse = build.op("Reciprocal", root.name)
        build.put("Div", [inverse, root.largest], [node.output[0]])
        self._inverses[node.output[0]] = _Part(inverse, root.of, root.normal, root.largest)
        return True

    def _divide(self, node: NodeProto, root: _Part) -> bool:
        if node.input[0] == root.of:
            self._index.build.put("Div", [root.normal, root.name], [node.output[0]])
            return True
        return self._index.scalar(node.input[0]) == 1 and self._invert(node, root)

    def _multiply(self, node: NodeProto) -> bool:
        for place in (0, 1):
            inverse = self._inverses.get(node.input[place])
            if inverse is not None and node.input[1 - place] == inverse.of:
                self._index.build.put("Mul", [inverse.normal, inverse.name], [node.output[0]])
                return True
        return False
