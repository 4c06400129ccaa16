"""Compute values of more than five axes, which Core ML does not have, with fewer axes.

PyTorch exports PixelUnshuffle, Unfold and adaptive pools with six axes; attention in windows has as many.
"""

from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from triune.coreml.lowering.context import MAX_RANK
from triune.coreml.lowering.deep.rules import RULES
from triune.coreml.lowering.deep.views import TooManyAxesError, Views
from triune.graph.index import Index
from triune.graph.names import Names
from triune.graph.passes.fold import Fold
from triune.graph.passes.infer import Infer
from triune.graph.passes.reshapes import Reshapes
from triune.graph.passes.run import GraphPass
from triune.graph.values import Values, names_read, subgraphs_of

_ROUNDS = 2
"""What one round learns of the shape of a value, the next one uses for the sizes that are computed from it."""


class FewerAxes(GraphPass):
    """Given nodes with operands or results of more than five axes, some of which can be joined with their neighbours.
    Result: nodes that compute the same elements from tensors of at most five axes.

    Each free size of an input must have a name of its own (`graph.own_names`).

    A graph in which one node needs more than five axes, or has too many axes of unknown size, keeps them all.

    Attributes:
        wide: the names of new values that must be computed in fp32.
    """

    name = "fewer_axes"

    def __init__(self, wide: Collection[str] = ()) -> None:
        """`wide` are the names of the values that must be computed in fp32. Make one instance for each model."""
        self._given_wide = wide
        self._index: Index | None = None
        self.wide: set[str] = set()

    def __call__(self, model: ModelProto) -> ModelProto:
        """Replace nodes with more than five axes in `model`, which is changed in place, and return it.

        The shapes of the values of `model` must have been inferred.
        """
        if _has_deep(model.graph, None):
            # Exporters compute the target shapes of Reshapes, of which more sizes are known by their names.
            fold = Fold()
            for _ in range(_ROUNDS):
                model = Infer()(fold(Infer()(Reshapes()(model))))
            self._index = Index(model.graph, "fewer_axes")
        names = Names(model.graph)
        # Ask for a name once before any change, since `Names` collects the graph's names at the first call.
        names.value("axes")
        return Infer()(model) if self._change(model.graph, None, names) else model

    def _change(self, graph: GraphProto, outer: Values | None, names: Names) -> bool:
        values = Values(graph, outer)
        is_changed = False
        for node in graph.node:
            for inner in subgraphs_of(node):
                is_changed |= self._change(inner, values, names)
        views = Views(values, names, MAX_RANK, self._given_wide, self._index if outer is None else None)
        if not any(views.is_deep(name) for node in graph.node for name in (*node.input, *node.output)):
            return is_changed
        try:
            for node in graph.node:
                _write(node, views)
            if any(views.is_deep(value.name) for value in graph.output):
                return is_changed
        except TooManyAxesError:
            return is_changed
        self.wide |= views.wide
        copies = [NodeProto.FromString(node.SerializeToString()) for node in views.nodes]
        kept = [value for value in graph.value_info if not views.is_deep(value.name)]
        del graph.node[:]
        graph.node.extend(copies)
        del graph.value_info[:]
        graph.value_info.extend(kept)
        graph.initializer.extend(views.constants)
        return True


def _has_deep(graph: GraphProto, outer: Values | None) -> bool:
    """Whether a value of a graph or of its subgraphs has more axes than Core ML allows."""
    values = Values(graph, outer)
    return any(
        any(name and len(values.shape(name) or ()) > MAX_RANK for name in node.output)
        or any(_has_deep(inner, values) for inner in subgraphs_of(node))
        for node in graph.node
    )


def _write(node: NodeProto, views: Views) -> None:
    """Copy a node to `views`, rewritten with fewer axes if an operand or result has more axes than Core ML allows.

    Raises:
        TooManyAxesError: the node cannot be written with fewer axes.
    """
    if any(views.is_deep(name) for inner in subgraphs_of(node) for name in names_read(inner)):
        raise TooManyAxesError
    if not any(views.is_deep(name) for name in (*node.input, *node.output)):
        views.nodes.append(node)
        return
    rule = RULES.get(node.op_type)
    if rule is None or not all(node.output) or node.domain not in ("", "ai.onnx"):
        raise TooManyAxesError
    views.begin(node)
    rule(node, views)
