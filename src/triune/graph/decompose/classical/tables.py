"""Write an ensemble of trees as constant tables, from which Gather nodes look up each node's children and scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper

from triune.graph.conversion.problems import Refusal, note_why
from triune.graph.decompose.classical.ensembles import MODES, Ensemble, ensemble_of, is_long
from triune.graph.names import Names
from triune.graph.passes.run import GraphPass
from triune.graph.values import attributes_of, subgraphs_of
from triune.graph.weights import tensor_of

OPERATORS = ("TreeEnsemble", "TreeEnsembleRegressor", "TreeEnsembleClassifier")
DOMAIN = "ai.onnx.ml.trees"
"""The domain of tree operators after `Tabulate`: the tables that replace their attributes are inputs after the
features.
"""

COMPARISONS = {
    "BRANCH_LEQ": "LessOrEqual",
    "BRANCH_LT": "Less",
    "BRANCH_GTE": "GreaterOrEqual",
    "BRANCH_GT": "Greater",
    "BRANCH_EQ": "Equal",
}

ALWAYS, SOMETIMES, NEVER = 2, 1, 0
"""Whether all, some or none of an ensemble's leaves have a score for a target."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of an ensemble on which its decomposition depends.

    Attributes:
        depth: the largest number of comparisons from a root to a leaf.
        comparison: the operator with which all nodes compare; "" if they differ, or if NaN takes a true branch.
        num_trees: the number of trees.
        given: for each target, whether all leaves have a score for it (ALWAYS), some do (SOMETIMES) or none does
            (NEVER).
        are_positive: whether all scores are at least 0.
    """

    depth: int
    comparison: str
    num_trees: int
    given: tuple[int, ...]
    are_positive: bool


def num_targets_of(attributes: Mapping[str, Any]) -> int:
    """The number of targets or classes of an ensemble."""
    labels = ("classlabels_int64s", "classlabels_strings")
    return max([len(attributes.get(name, [])) for name in labels]) or attributes.get("n_targets", 1)


def tables_of(trees: Ensemble) -> tuple[dict[str, NDArray[Any]], Facts]:
    """The tables of an ensemble by name, and its properties.

    `features`, `splits`, `if_true`, `if_false` and `rules` have an element for each node. `rules` exists only if nodes
    compare in several ways: 2 * index in MODES, plus 1 if NaN takes the true branch. `root_features`, `root_splits` and
    so on have shape (1, trees): the elements of the trees' root nodes. If each tree has scores for one target only,
    `scores` is (leaves,), and `targets` (trees, targets) is 1 at the tree's target. Else `scores` is (leaves, targets).
    `given` (leaves, targets) is 1 where a leaf has a score; it does not exist if all have.
    """
    modes: list[int] = np.unique(trees.modes[len(trees.scores) :]).tolist() or [0]
    is_simple = len(modes) == 1 and not trees.tracks_missing.any()
    comparison = COMPARISONS.get(MODES[modes[0]], "") if is_simple else ""
    tables: dict[str, NDArray[Any]] = {
        "features": trees.features,
        "splits": trees.splits,
        "if_true": trees.if_true,
        "if_false": trees.if_false,
    }
    if not comparison:
        tables["rules"] = trees.modes.astype(np.int32) * 2 + trees.tracks_missing.astype(np.int32)
    tables |= {f"root_{name}": table[trees.roots][None] for name, table in tables.items()}
    targets = trees.target_of_trees()
    if targets is None:
        tables["scores"] = trees.scores
    else:
        tables["scores"] = trees.scores.sum(axis=1)
        tables["targets"] = np.eye(trees.scores.shape[1], dtype=np.float32)[targets]
    if not trees.given.all():
        tables["given"] = trees.given.astype(np.int32)
    given = np.where(trees.given.all(axis=0), ALWAYS, np.where(trees.given.any(axis=0), SOMETIMES, NEVER))
    are_positive = bool((trees.scores >= 0).all())
    facts = Facts(trees.depth, comparison, len(trees.roots), tuple(given.tolist()), are_positive)
    return tables, facts


class Tabulate(GraphPass):
    """Given tree ensembles with attributes. Result: the same operators with constant tables as inputs instead.

    Passes that copy a node copy its attributes, too, but not constants; attributes of trees are large. The domain of
    the operator becomes "ai.onnx.ml.trees".
    """

    name = "tabulate"

    def __call__(self, model: ModelProto) -> ModelProto:
        """Move the attributes of tree ensembles in `model`, in place, to constants.

        A node whose attributes are not valid trees stays; its decomposition says why.
        """
        is_changed = self._tabulate(model.graph, Names(model.graph))
        if is_changed and all(each.domain != DOMAIN for each in model.opset_import):
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return model

    def _tabulate(self, graph: GraphProto, names: Names) -> bool:
        is_changed = False
        for node in graph.node:
            for subgraph in subgraphs_of(node):
                is_changed |= self._tabulate(subgraph, names)
            if node.domain != "ai.onnx.ml" or node.op_type not in OPERATORS:
                continue
            try:
                _write(graph, node, names)
                is_changed = True
            except Refusal as refusal:
                note_why(node, str(refusal))
        return is_changed


def _write(graph: GraphProto, node: NodeProto, used: Names) -> None:
    short = [each for each in node.attribute if not is_long(each.name)]
    attributes = attributes_of(NodeProto(attribute=short))
    tables, facts = tables_of(ensemble_of(node, num_targets_of(attributes)))
    prefix = used.prefix(f"{node.output[0] or node.output[1]}/trees")
    names = {name: f"{prefix}/{name}" for name in tables}
    kept = NodeProto(op_type=node.op_type, domain=DOMAIN, name=node.name, attribute=short)
    kept.input.extend([node.input[0], *names.values()])
    kept.output.extend(node.output)
    stated = {"depth": facts.depth, "comparison": facts.comparison, "num_trees": facts.num_trees}
    stated |= {"given": facts.given, "are_positive": int(facts.are_positive), "tables": list(names)}
    kept.attribute.extend(helper.make_attribute(f"trees_{name}", value) for name, value in stated.items())
    graph.initializer.extend(tensor_of(names[name], table) for name, table in tables.items())
    node.CopyFrom(kept)


def tabulated(attributes: Mapping[str, Any]) -> tuple[list[str], Facts]:
    """The names of the tables that a node has as inputs after `Tabulate`, in order, and the properties of its ensemble.
    `attributes` are the attributes of the node.
    """
    facts = Facts(
        attributes["trees_depth"],
        attributes["trees_comparison"],
        attributes["trees_num_trees"],
        tuple(attributes["trees_given"]),
        bool(attributes["trees_are_positive"]),
    )
    return attributes["trees_tables"], facts
