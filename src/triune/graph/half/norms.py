"""Rewrite normalizations, x / sqrt(mean(x^2) + epsilon), so that no intermediate value overflows in fp16."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from triune.graph.half.limits import SMALLEST_NORMAL
from triune.graph.index import Index
from triune.graph.match.mean_square import match_mean_square, uncentered
from triune.graph.passes.run import GraphPass


class FitNorms(GraphPass):
    """Given z / sqrt(mean(z^2) + epsilon), with z = x or x - mean(x). Result: y / sqrt(mean(y^2) + epsilon / m^2), with
    y = z / m and m = max(|x|).

    The square of a number above 256 is beyond fp16, and the Neural Engine does not compute in fp32. No element of x / m
    is beyond 1, so a sum of n squares is at most n. epsilon / m^2 is computed as (sqrt(epsilon) / m)^2, and m is at
    least sqrt(epsilon), so that nothing divides by 0. Nodes that read the root outside of the norm get root * m, and
    those that read 1 / root get (1 / root) / m.

    Subgraphs stay as they are.
    """

    name = "fit_norms"

    def __init__(self, keep: Collection[str] = (), *, of_halves_alone: bool = False) -> None:
        """Args:
        keep: names of nodes and operators that the user keeps in fp32; their norms stay as they are.
        of_halves_alone: whether to rewrite only norms of values that are fp16 in the model file.
        """
        self._keep = keep
        self._of_halves_alone = of_halves_alone

    def __call__(self, model: ModelProto) -> ModelProto:
        """Rewrite normalizations in `model`, in place, so that squares stay within fp16.

        `model` must be normalized and narrowed. New values have no types yet.
        """
        index = Index(model.graph, "half/norms")
        norms = _Norms(index, self._keep, of_halves_alone=self._of_halves_alone)
        nodes: list[NodeProto] = []
        for node in model.graph.node:
            is_made = norms.fit(node)
            nodes += index.take()
            if not is_made:
                nodes.append(node)
        index.replace(nodes)
        return model


@dataclass(frozen=True, slots=True)
class _Part:
    """An intermediate value of a rewritten norm: the mean of squares plus epsilon, its root, or the root's inverse.

    It is computed from y = z / m in place of z, so that it is within fp16.

    Attributes:
        name: the name of this intermediate value.
        of: the name of z, the value that the model normalizes.
        normal: the name of y.
        largest: the name of m, the largest absolute value along the axes of the mean.
    """

    name: str
    of: str
    normal: str
    largest: str


class _Norms:
    """Rewrites the norms of one graph. Call `fit` with every node, in the graph's order."""

    def __init__(self, index: Index, keep: Collection[str], *, of_halves_alone: bool) -> None:
        self._index = index
        self._keep = frozenset(keep)
        self._of_halves_alone = of_halves_alone
        self._sums: dict[str, _Part] = {}
        self._roots: dict[str, _Part] = {}
        self._inverses: dict[str, _Part] = {}

    def fit(self, node: NodeProto) -> bool:
        """Build the nodes that replace a node of a norm; returns False if the node is to stay."""
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

    def _begin(self, add: NodeProto) -> None:
        """If an Add computes mean(z^2) + epsilon of a norm, build mean(y^2) + epsilon / m^2.

        z is the value that the model normalizes. m is the largest absolute value along the axes of the mean, and y is
        z / m; both are built here, too.
        """
        index, build = self._index, self._index.build
        found = match_mean_square(index, add)
        if found is None or found.epsilon <= 0:
            return
        if self._of_halves_alone and index.dtype(found.z) != np.float16:
            return
        nodes = [*found.nodes, *index.readers(add.output[0])]
        if any(self._keep & {node.name, node.op_type} for node in nodes):
            return
        x, epsilon = uncentered(index, found), found.epsilon
        axes = found.mean.input[1]
        least = max(math.sqrt(epsilon), SMALLEST_NORMAL)
        number = index.dtype(found.z).type
        sizes = build.op("ReduceMax", build.op("Abs", x or found.z), axes, keepdims=1)
        largest = build.op("Max", sizes, index.weight(np.array(least, number)))
        normal = build.op("Div", x or found.z, largest)
        if x:
            normal = build.op("Sub", normal, build.op("ReduceMean", normal, axes, keepdims=1))
        variance = build.op("ReduceMean", build.op("Mul", normal, normal), axes, keepdims=1)
        ratio = build.op("Div", index.weight(np.array(least, number)), largest)
        added = build.op("Mul", ratio, ratio)
        share = max(epsilon / least**2, SMALLEST_NORMAL)
        if not math.isclose(share, 1):
            added = build.op("Mul", added, index.weight(np.array(share, number)))
        self._sums[add.output[0]] = _Part(build.op("Add", variance, added), found.z, normal, largest)

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
        for position in (0, 1):
            inverse = self._inverses.get(node.input[position])
            if inverse is not None and node.input[1 - position] == inverse.of:
                self._index.build.put("Mul", [inverse.normal, inverse.name], [node.output[0]])
                return True
        return False
