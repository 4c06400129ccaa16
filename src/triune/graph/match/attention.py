"""Match scaled dot-product attention as exporters write it: MatMul, a scale, masks, Softmax, MatMul."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from triune.graph.index import Index

_MOST_STEPS = 12
"""The largest number of operators between the first MatMul and the Softmax: each Add doubles the possible matches."""


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """One operator that is applied to the scores between the MatMul of queries and keys and the Softmax.

    Attributes:
        node: a Mul, Div, Add or Where.
        index: the position of the scores among the node's inputs.
        factor: the constant that multiplies the scores; None for Add, Where, and a Mul or Div by 0.
    """

    node: NodeProto
    index: int
    factor: float | None = None

    @property
    def others(self) -> Sequence[tuple[int, str]]:
        """The positions and names of the inputs that are not the scores: scales, masks, conditions."""
        return [(index, name) for index, name in enumerate(self.node.input) if index != self.index]


@dataclass(frozen=True, slots=True)
class Scores:
    """Softmax(steps(MatMul(queries, keys))), the weights of an attention.

    Attributes:
        queries: the name of a value (..., Q, width).
        keys: the name of a value (..., width, K), already transposed for the MatMul.
        steps: the operators applied to the scores (..., Q, K), in order.
        product: the MatMul.
        softmax: the Softmax.
    """

    queries: str
    keys: str
    steps: tuple[ScoreStep, ...]
    product: NodeProto
    softmax: NodeProto

    @property
    def nodes(self) -> Sequence[NodeProto]:
        """All nodes of the pattern, in order."""
        return [self.product, *(step.node for step in self.steps), self.softmax]

    @property
    def scale(self) -> float:
        """The product of the constants that multiply the scores before any mask."""
        return prod(step.factor or 1.0 for step in self.steps[: self._num_scales])

    @property
    def masking(self) -> Sequence[ScoreStep]:
        """The steps after the scale: the first mask and all steps after it."""
        return self.steps[self._num_scales :]

    @property
    def _num_scales(self) -> int:
        return next((count for count, step in enumerate(self.steps) if step.factor is None), len(self.steps))


@dataclass(frozen=True, slots=True)
class Attention:
    """MatMul(Softmax(steps(MatMul(queries, keys))), values).

    Attributes:
        scores: the part that ends with the Softmax, with queries, keys, scale and masks.
        values: the name of a value (..., K, width).
        output: the MatMul that gives the result (..., Q, width).
    """

    scores: Scores
    values: str
    output: NodeProto

    @property
    def nodes(self) -> Sequence[NodeProto]:
        """All nodes of the pattern, in order."""
        return [*self.scores.nodes, self.output]


def match_scores(index: Index, softmax: NodeProto) -> Iterator[Scores]:
    """Yield all matches of a Softmax's operand as scores: one for each MatMul that leads to it.

    There are several if both operands of an Add or Where come from a MatMul: the scores, and a bias that is also a
    matrix product.
    """
    for product, steps in _products(index, softmax.input[0]):
        yield Scores(product.input[0], product.input[1], steps, product, softmax)


def match_attention(index: Index, matmul: NodeProto) -> Iterator[Attention]:
    """Yield all matches of attention that end with a MatMul: one for each match of scores, so for most MatMuls none."""
    softmax = index.producer(matmul.input[0], "Softmax") if matmul.op_type == "MatMul" else None
    if softmax is not None:
        for scores in match_scores(index, softmax):
            yield Attention(scores, matmul.input[1], matmul)


def _products(index: Index, name: str, depth: int = 0) -> Iterator[tuple[NodeProto, tuple[ScoreStep, ...]]]:
    """Yield each MatMul from which only scales and masks lead to `name`, and these scales and masks in order."""
    node = index.producer(name, "MatMul", "Mul", "Div", "Add", "Where")
    if node is None or depth > _MOST_STEPS:
        return
    if node.op_type == "MatMul":
        yield node, ()
        return
    for step in _steps(index, node):
        for product, before in _products(index, node.input[step.index], depth + 1):
            yield product, (*before, step)


def _steps(index: Index, node: NodeProto) -> Iterator[ScoreStep]:
    """Yield all ways to read a node as a step: one for each operand that may be the scores."""
    for operand in {"Add": (0, 1), "Mul": (0, 1), "Where": (1, 2)}.get(node.op_type, (0,)):
        if not _keeps_rank(index, node, operand):
            continue
        if node.op_type in ("Add", "Where"):
            yield ScoreStep(node, operand)
            continue
        number = index.scalar(node.input[1 - operand])
        if number is not None:
            factor = number if node.op_type == "Mul" or number == 0 else 1 / number
            yield ScoreStep(node, operand, factor or None)


def _keeps_rank(index: Index, node: NodeProto, operand: int) -> bool:
    """Whether the result of a node has the rank of an operand. A constant of shape [1, 1, 1, 1] may make the rank
    higher.
    """
    return index.rank(node.output[0]) == index.rank(node.input[operand])


def constant_factor(index: Index, name: str) -> tuple[float, str]:
    """Read a value as factor * other value, looking back through each Mul and Div by a constant of one element that
    does not change the rank.
    """
    node = index.producer(name, "Mul", "Div")
    for operand in (0, 1) if node is not None and node.op_type == "Mul" else (1,):
        number = index.scalar(node.input[operand]) if node is not None else None
        if node is not None and number and _keeps_rank(index, node, 1 - operand):
            factor, value = constant_factor(index, node.input[1 - operand])
            return (number if node.op_type == "Mul" else 1 / number) * factor, value
    return 1.0, name
