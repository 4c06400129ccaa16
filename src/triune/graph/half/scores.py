"""Move scales from the results of matrix products to their operands: those of attention scores, and small ones of
layers.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.half.bounds import Bounds
from triune.graph.half.levels import is_integral
from triune.graph.half.operands import Operands
from triune.graph.half.operators import LAYERS, POOLING_SCALE_THROUGH, PRODUCT_FOLLOWERS, RECTIFIERS, SCALE_THROUGH
from triune.graph.half.producers import Producers
from triune.graph.half.scale import Scale, is_strong, scales_of
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, names_read_by, subgraphs_of
from triune.graph.weight_files import WeightFile

_CHOICES = {"Add": (0, 1), "Sub": (0, 1), "Where": (1, 2)}
"""For each operator, the positions of the operands that must be scaled to scale the result."""

_DEEPEST = 8


class ScaleBefore(GraphPass):
    """Given `(q @ k) * scale` or `(q @ k) / divisor`, where the scale is one number. Result: `(q * scale) @ k`.

    q @ k may be beyond fp16 while (q @ k) * scale is within it. Between the product and the scale there may be
    reshapes, transpositions, masks and sums; then the other operands of the sums are scaled, too. If q * scale would be
    too small for fp16, a part of a constant scale stays after the product.

    In layers (Conv, ConvTranspose, Gemm, MatMul with constants) a constant scale, of one number or one for each
    channel, is multiplied into weights and bias, even if a Relu stands between. If all readers of a value scale it far
    down, one scale is put right after the value.
    """

    name = "scale_before"

    def __init__(self, file: WeightFile) -> None:
        """`file` is the scratch file for new large weights."""
        self._file = file

    def __call__(self, model: ModelProto) -> ModelProto:
        """Move scales in `model`, in place, before the matrix products. `model` must be normalized."""
        _scale_before(model.graph, None, Names(model.graph), self._file)
        return model


def _scale_before(graph: GraphProto, outer: Values | None, names: Names, file: WeightFile) -> None:
    values = Values(graph, outer)
    for node in graph.node:
        for inner in subgraphs_of(node):
            _scale_before(inner, values, names, file)
    scores = _Scores(graph, values, names, file)
    for node in list(graph.node):
        scores.scale_once(node)
    _replace(graph, scores.operands.nodes)
    # Analyse the graph anew for this second step, since the first one has added nodes.
    scores = _Scores(graph, Values(graph, outer), names, file)
    for node in list(graph.node):
        scores.scale_before(node)
    _replace(graph, scores.operands.nodes)


def _replace(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


class _Scores:
    """Finds chains of nodes from matrix products to a scale, and moves the scale.

    Attributes:
        operands: multiplies scales into operands, and has the graph's nodes in order.
    """

    def __init__(self, graph: GraphProto, values: Values, names: Names, file: WeightFile) -> None:
        self._values = values
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._reads = Counter(
            name for node in graph.node for name in (*node.input, *(names_read_by(node) - {*node.input}))
        )
        self._reads.update(value.name for value in graph.output)
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._known = Producers(graph, values, Bounds(values))
        self.operands = Operands(graph, values, names, file, self._reads, self._known)

    def scale_once(self, node: NodeProto) -> None:
        """If every reader of the result of `node` multiplies it by one number far below 1, scale the result right after
        `node`.

        The result is multiplied by the largest of these numbers, and the readers' scales are divided by it.
        """
        if node.op_type not in PRODUCT_FOLLOWERS:
            return
        name = node.output[0]
        readers = self._readers.get(name, [])
        scales = [_scale_by(self._values, reader, name) for reader in readers]
        if len(readers) < 2 or self._reads[name] != len(readers) or self._values.elem_type(name) != 1:
            return
        known = [scale for scale in scales if scale is not None and scale.factors.size == 1 and is_strong(scale)]
        if len(known) < len(readers):
            return
        factor = max((scale.factors for scale in known), key=lambda each: float(np.abs(each).max()))
        scaled = self.operands.inserted_after(node, Scale("Mul", "", factor))
        for reader, scale in zip(readers, known, strict=True):
            self.operands.rescale(reader, scaled, scale.factors / factor)

    def scale_before(self, last: NodeProto) -> None:
        """If the node `last` scales the result of matrix products, scale the operands of these products instead."""
        for name, scale in scales_of(self._values, last):
            chain = self._chain(name, scale)
            terminals = [node for node in chain if node.op_type == "MatMul" or node.op_type in LAYERS]
            if not terminals or not self._is_wanted(terminals, chain, last, scale):
                continue
            pushed = self.operands.movable_part(terminals, scale)
            if pushed is None:
                return
            if scale.name:
                self.operands.move_chain_before(last, chain)
            for node in chain:
                self._scale_operands(node, pushed, chain)
            self._reduce_scale(last, name, scale, pushed)
            return

    def _is_wanted(
        self, terminals: Sequence[NodeProto], chain: Sequence[NodeProto], last: NodeProto, scale: Scale
    ) -> bool:
        """Whether to move a scale from `last` to the operands of the products `terminals`: always for attention scores;
        for layers only if it is far below 1 or moving it adds no node.
        """
        if scale.name or is_strong(scale) or all(node.op_type == "MatMul" for node in terminals):
            return True
        inner = {name for node in chain for name in node.output}
        others = [node.input[position] for node in chain for position in _CHOICES.get(node.op_type, ())]
        if any(name not in inner and self._values.tensor(name) is None for name in others):
            return False
        if not all(self.operands.is_own_constant(node, 1) for node in terminals if node.op_type in LAYERS):
            return False
        # A Div is moved only by powers of two: a quotient of integers may be exact, while the product with the
        # reciprocal is not.
        return last.op_type == "Mul" or scale.is_power_of_two

    def _chain(self, name: str, scale: Scale, depth: int = 0) -> list[NodeProto]:
        """The matrix products from which a value is computed, and the nodes between them and the scale, operands first;
        [] if the scale cannot be moved through them.
        """
        node, rank = self._producers.get(name), self._values.rank(name)
        if node is None or self._reads[name] != 1 or depth > _DEEPEST or not rank:
            return []
        if node.op_type == "MatMul" or (node.op_type in LAYERS and not scale.name):
            has_axes = all(self._values.rank(each) for each in node.input[:2])
            return [node] if has_axes and self._can_be_scaled(node, scale, rank) else []
        is_of_one = scale.factors.size == 1
        is_passed = (
            (node.op_type in SCALE_THROUGH and is_of_one)
            or node.op_type in ("Identity", "Neg")
            or (node.op_type in RECTIFIERS and not scale.name and scale.is_positive)
            or (node.op_type in POOLING_SCALE_THROUGH and not scale.name and scale.is_positive and is_of_one)
        )
        if is_passed:
            before = self._chain(node.input[0], scale, depth + 1)
            return [*before, node] if before else []
        if node.op_type not in _CHOICES:
            return []
        before: list[NodeProto] = []
        for position in _CHOICES[node.op_type]:
            operand = node.input[position]
            # A computed scale is not moved through a Where with a constant mask: the product of both may be beyond
            # fp16.
            if scale.name and node.op_type == "Where" and self._values.constant(operand) is not None:
                return []
            if not is_of_one and self._values.rank(operand) != rank and operand in self._producers:
                return []
            before += self._chain(operand, scale, depth + 1)
        return [*before, node] if before else []

    def _can_be_scaled(self, product: NodeProto, scale: Scale, rank: int) -> bool:
        """Whether a product can be scaled by scaling its operands."""
        if product.op_type != "MatMul" and all(is_integral(name, self._known) for name in product.input[:2]):
            return False
        if scale.factors.size == 1:
            return True
        is_of_last = product.op_type in ("MatMul", "Gemm")
        is_own_constant = product.op_type == "MatMul" or self.operands.is_own_constant(product, 1)
        has_columns = (self._values.rank(product.input[1]) or 0) >= 2
        return has_columns and is_own_constant and scale.axis(rank) == (rank - 1 if is_of_last else 1)

    def _scale_operands(self, node: NodeProto, scale: Scale, chain: Sequence[NodeProto]) -> None:
        """Multiply operands of `node`, one of the nodes `chain`, by a scale, so that its result is scaled. Operands
        that another node of the chain computes are left out, since that node is scaled itself.
        """
        if node.op_type == "MatMul" or node.op_type in LAYERS:
            self.operands.scale_product(node, scale)
            return
        scaled = {id(each) for each in chain}
        for position in _CHOICES.get(node.op_type, ()):
            if id(self._producers.get(node.input[position])) not in scaled:
                node.input[position] = self.operands.scaled(node.input[position], scale, node)

    def _reduce_scale(self, last: NodeProto, name: str, scale: Scale, pushed: Scale) -> None:
        """Remove the node `last`, which multiplies scores by `scale`. If only the factor `pushed` was moved before the
        scores, let the node multiply by scale / pushed instead.
        """
        if scale.name or np.array_equal(scale.factors, pushed.factors):
            self.operands.remove(last)
            producer = self._producers[name]
            producer.output[list(producer.output).index(name)] = last.output[0]
            self._producers[last.output[0]] = producer
            return
        self.operands.rescale(last, name, scale.factors / pushed.factors)


def _scale_by(values: Values, reader: NodeProto, name: str) -> Scale | None:
    """The constant scale by which the node `reader` multiplies the value `name`; None if there is none."""
    found = [scale for scaled, scale in scales_of(values, reader) if scaled == name and not scale.name]
    return found[0] if found else None
