"""Constant folding of arithmetic on large constants, which the other passes do not read."""

from collections.abc import Collection
from typing import Final

from onnx import GraphProto, ModelProto, NodeProto

from triune.graph.core_ops import OPSET
from triune.graph.passes.fold import NOT_FOLDED, Fold
from triune.graph.passes.run import GraphPass
from triune.graph.passes.tidy import Tidy
from triune.graph.values import nodes_within, subgraphs_of
from triune.graph.weights import Large

_MOVES: Final = frozenset(
    {
        *("Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
"""Operators that move or cast elements. Every library computes them in the same way, so that weights need not be read
for them.
"""

_SLOW: Final = frozenset(
    {
        *("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "GridSample", "GRU", "LpPool", "LSTM"),
        *("MatMul", "MaxPool", "NonMaxSuppression", "Resize", "RNN", "RoiAlign"),
    }
)
"""Operators that take long in ONNX's reference evaluator."""

_MOST_ELEMENTS: Final = 1 << 31


class FoldLarge(GraphPass):
    """Given nodes whose inputs are constants of any size, and which compute more than moves of elements. Result:
    constants in their place, and in the place of the moves before them.

    The libraries that take a converted model fold these nodes too, and not all rightly: coremltools (9.0) ignores the
    reduction of a scatter and the order of equal elements in a TopK; Core AI's compiler ends the process for erf, and
    gives infinity for the LogSumExp of large numbers.
    """

    name = "fold large constants"

    def __init__(self, large: Large) -> None:
        """`large` has put the large constants back into the graph. Its file gets the new ones."""
        self._large = large

    def __call__(self, model: ModelProto) -> ModelProto:
        """Fold the nodes of `model`, in place, as far as `Fold` can and the results take no more bytes than the
        operands. Shapes and types must have been inferred.
        """
        wanted = _wanted(model.graph)
        if not wanted:
            return model
        fold = Fold(OPSET, grows=False, most_elements=_MOST_ELEMENTS, only=wanted)
        folded = Tidy()(fold(model))
        self._large.take(folded)
        self._large.give_back(folded)
        return folded


def _wanted(graph: GraphProto) -> frozenset[str]:
    """The outputs of the nodes to fold, in a graph and its subgraphs."""
    constants = {tensor.name for tensor in graph.initializer}
    known: list[NodeProto] = []
    for node in nodes_within(graph.node):
        constants.update(tensor.name for inner in subgraphs_of(node) for tensor in inner.initializer)
        if node.op_type == "Constant":
            constants.update(node.output)
        elif _is_foldable(node, constants):
            constants.update(node.output)
            known.append(node)
    wanted: set[str] = set()
    read: set[str] = set()
    for node in reversed(known):
        if node.op_type not in _MOVES or not read.isdisjoint(node.output):
            wanted.update(filter(None, node.output))
            read.update(node.input)
    return frozenset(wanted)


def _is_foldable(node: NodeProto, constants: Collection[str]) -> bool:
    inputs = [name for name in node.input if name]
    is_kind = node.domain in ("", "ai.onnx") and node.op_type not in NOT_FOLDED | _SLOW
    return is_kind and bool(inputs) and all(name in constants for name in inputs) and not any(subgraphs_of(node))
