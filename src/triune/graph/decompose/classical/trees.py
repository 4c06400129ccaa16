"""Ensembles of decision trees, as Gather nodes over constant tables.

The tables (see `tables`) hold each tree node's feature, threshold and children. For all rows and trees at once, a few
ONNX nodes for each level of the trees look up the current tree nodes and choose one child of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from triune.graph.builder import Builder
from triune.graph.conversion.problems import Refusal
from triune.graph.decompose.classical.ensembles import ensemble_of
from triune.graph.decompose.classical.features import rows_of
from triune.graph.decompose.classical.scores import both_classes, give_label, post_transformed, probit
from triune.graph.decompose.classical.tables import (
    ALWAYS,
    DOMAIN,
    NEVER,
    SOMETIMES,
    Facts,
    num_targets_of,
    tables_of,
    tabulated,
)
from triune.graph.decompose.context import Context, Decomposition

MAX_DEPTH = 512
"""The largest depth of a tree. Deeper trees are refused, since each level takes about ten nodes of the graph."""

# For each comparison mode of a tree node: whether the comparison is true (1) if the feature is NaN, less than, equal
# to, or greater than the threshold.
_TRUTHS = {
    "BRANCH_LEQ": (0, 1, 1, 0),
    "BRANCH_LT": (0, 1, 0, 0),
    "BRANCH_GTE": (0, 0, 1, 1),
    "BRANCH_GT": (0, 0, 0, 1),
    "BRANCH_EQ": (0, 0, 1, 0),
    "BRANCH_NEQ": (1, 1, 0, 1),
}
_POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(frozen=True, slots=True)
class _Trees:
    """An ensemble, and the leaves that the rows of the input reach in it.

    Attributes:
        tables: the names of the constants that describe the ensemble, by their names in `tables_of`.
        facts: the ensemble's other properties.
        leaves: INT32 (N, trees), the leaf that each row reaches in each tree.
    """

    tables: Mapping[str, str]
    facts: Facts
    leaves: str


def _find_leaves(c: Context) -> _Trees | None:
    """Build the nodes that find the leaf of each row in each tree; None if the input's rank or type is not known."""
    rows = rows_of(c)
    if rows is None:
        return None
    if c.node.domain == DOMAIN:
        names, facts = tabulated(c.attributes)
        tables = dict(zip(names, list(c.node.input)[1:], strict=True))
    else:
        arrays, facts = tables_of(ensemble_of(c.node, num_targets_of(c.attributes)))
        tables = {name: c.build.constant(array) for name, array in arrays.items()}
    if facts.depth > MAX_DEPTH:
        raise Refusal(f"its trees are {facts.depth} deep, and programs would grow with that; train them shallower")
    return _Trees(tables, facts, _leaves(c.build, tables, facts, rows[0]))


def _leaves(b: Builder, tables: Mapping[str, str], facts: Facts, x: str) -> str:
    """Build INT32 (N, trees), the leaf of each row in each tree, level by level, from fp32 `x` (N, features)."""
    own = [name for name in ("features", "splits", "if_true", "if_false", "rules") if name in tables]
    here = {name: tables[f"root_{name}"] for name in own}
    # At the root all rows compare the same feature, so whole columns of x are gathered.
    features = b.op("Gather", x, b.op("Squeeze", here["features"], b.ints(0)), axis=1)
    position = _next(b, facts, features, here)
    for _ in range(1, facts.depth):
        here = {name: b.op("Gather", tables[name], position) for name in own}
        features = b.op("GatherElements", x, here["features"], axis=1)
        position = _next(b, facts, features, here)
    return position


def _next(b: Builder, facts: Facts, features: str, here: Mapping[str, str]) -> str:
    """Build the numbers of the tree nodes one level deeper.

    `features` has the values that the current tree nodes compare, and `here` the current nodes' elements of each table.
    """
    if facts.comparison:
        is_true = b.op(facts.comparison, features, here["splits"])
    else:
        case = b.cast(b.op("Less", features, here["splits"]), TensorProto.INT32)
        for number, comparison in ((2, "Equal"), (3, "Greater")):
            holds = b.cast(b.op(comparison, features, here["splits"]), TensorProto.INT32)
            case = b.op("Add", case, b.op("Mul", holds, b.constant(number, np.int32)))
        rule = b.op("Add", b.op("Mul", here["rules"], b.constant(4, np.int32)), case)
        is_true = b.cast(b.op("Gather", b.constant(_truths()), rule), TensorProto.BOOL)
    return b.op("Where", is_true, here["if_true"], here["if_false"])


def _truths() -> NDArray[np.int32]:
    """A table of which branch to take: 1 for the true branch, else 0.

    The index is 8 * mode + 4 * tracks_missing + case, where the case is 0 if the feature is NaN, 1 if it is less than
    the threshold, 2 if equal, 3 if greater.
    """
    rows: list[int] = []
    for truths in _TRUTHS.values():
        rows += [*truths, 1, *truths[1:]]
    return np.array(rows, np.int32)


def _sum(c: Context, trees: _Trees) -> str:
    """Build (N, targets), the sums of the scores of each row's leaves."""
    b = c.build
    scores = b.op("Gather", trees.tables["scores"], trees.leaves)
    if "targets" not in trees.tables:
        return b.op("ReduceSum", scores, b.ints(1), keepdims=0)
    if len(trees.facts.given) == 1:
        return b.op("ReduceSum", scores, b.ints(1), keepdims=1)
    return b.op("MatMul", scores, trees.tables["targets"])


def _extreme(c: Context, trees: _Trees, reduction: str) -> str:
    """Build (N, targets), the smallest or largest score of each row's leaves; 0 where none has a score for a target."""
    b = c.build
    scores = b.op("Gather", trees.tables["scores"], trees.leaves)
    if "targets" in trees.tables:
        scores = b.op("Mul", b.op("Unsqueeze", scores, b.ints(2)), trees.tables["targets"])
    # As in ONNX Runtime: with one target, a leaf without a score has the score 0.
    if len(trees.facts.given) == 1 or all(given == ALWAYS for given in trees.facts.given):
        return b.op(reduction, scores, b.ints(1), keepdims=0)
    none = b.constant(np.inf if reduction == "ReduceMin" else -np.inf, np.float32)
    given = b.cast(b.op("Gather", trees.tables["given"], trees.leaves), TensorProto.BOOL)
    found = b.op(reduction, b.op("Where", given, scores, none), b.ints(1), keepdims=0)
    return b.op("Where", b.op("Equal", found, none), b.constant(0, np.float32), found)


def _has_score(c: Context, trees: _Trees) -> str:
    """Build BOOL (N, targets), whether any of a row's leaves has a score for a target."""
    b = c.build
    given = b.op("Gather", trees.tables["given"], trees.leaves)
    return b.op("Greater", b.op("ReduceMax", given, b.ints(1), keepdims=0), b.constant(0, np.int32))


def _base(c: Context) -> NDArray[np.float32]:
    tensor = c.attributes.get("base_values_as_tensor")
    given: Any = numpy_helper.to_array(tensor) if tensor is not None else c.attributes.get("base_values", [])
    return np.array(given, np.float32).reshape(-1)


def _regressor(c: Context, aggregate: str, transform: str, elem_type: int = TensorProto.FLOAT) -> bool:
    """Aggregate scores, add base values and apply the post transform, in fp32; `elem_type` is the type of the
    result.
    """
    trees = _find_leaves(c)
    if trees is None:
        return False
    b, num_targets = c.build, len(trees.facts.given)
    match aggregate:
        case "MIN" | "MAX":
            total = _extreme(c, trees, f"Reduce{aggregate.capitalize()}")
        case "AVERAGE":
            total = b.op("Div", _sum(c, trees), b.constant(trees.facts.num_trees, np.float32))
        case _:
            total = _sum(c, trees)
    base = _base(c)
    if base.size == num_targets:
        total = b.op("Add", total, b.constant(base))
        if num_targets > 1 and "given" in trees.tables:
            # As in ONNX Runtime: if no leaf of the row has a score for a target, the target is 0, without its base
            # value.
            total = b.op("Where", _has_score(c, trees), total, b.constant(0, np.float32))
    if num_targets > 1:
        total = post_transformed(c, total, transform)
    elif transform == "PROBIT":
        # For one target ONNX Runtime supports no other post transform than PROBIT.
        total = probit(c, total)
    c.give(total if elem_type == TensorProto.FLOAT else b.cast(total, elem_type))
    return True


def tree_ensemble_regressor(c: Context) -> bool:
    """TreeEnsembleRegressor: the scores of each row's leaves, aggregated for each target."""
    aggregate: str = c.attributes.get("aggregate_function", "SUM")
    return _regressor(c, aggregate, c.attributes.get("post_transform", "NONE"))


def tree_ensemble(c: Context) -> bool:
    """TreeEnsemble: a TreeEnsembleRegressor whose attributes are numbers, and whose result has the type of the
    features.
    """
    attributes = c.attributes
    aggregate: str = _AGGREGATES[int(attributes.get("aggregate_function", 1))]
    transform: str = _POST_TRANSFORMS[int(attributes.get("post_transform", 0))]
    if transform in ("SOFTMAX", "LOGISTIC"):
        raise Refusal(
            "ONNX and ONNX Runtime number SOFTMAX and LOGISTIC differently; use post_transform 0 and add the operator"
        )
    return _regressor(c, aggregate, transform, c.values.elem_type(c.input(0)) or TensorProto.FLOAT)


def tree_ensemble_classifier(c: Context) -> bool:
    """TreeEnsembleClassifier: the class with the largest sum of scores, and the scores of all classes."""
    transform = c.attributes.get("post_transform", "NONE")
    trees = _find_leaves(c)
    if trees is None:
        return False
    count = len(trees.facts.given)
    if count < 2:
        raise Refusal("it has fewer than two classes")
    (_of_two if count == 2 else _of_many)(c, trees, transform)
    return True


def _of_many(c: Context, trees: _Trees, transform: str) -> None:
    b, count = c.build, len(trees.facts.given)
    scores, base = _sum(c, trees), _base(c)
    if base.size:
        scores = b.op("Add", scores, b.constant(np.pad(base, (0, count - base.size))))
    c.give(post_transformed(c, scores, transform), 1)
    # A class for which none of the row's leaves has a score is not chosen.
    compared = scores
    if base.size < count and "given" in trees.tables:
        is_given = _has_score(c, trees)
        if base.size:
            is_given = b.op("Or", is_given, b.constant(np.arange(count) < base.size))
        lowest = b.constant(np.finfo(np.float32).min, np.float32)
        compared = b.op("Where", is_given, scores, lowest)
    give_label(c, b.op("ArgMax", compared, axis=-1, keepdims=0))


def _of_two(c: Context, trees: _Trees, transform: str) -> None:
    """Give the label and scores of two classes, as ONNX Runtime's TreeAggregatorClassifier does.

    The score of the second class decides. If that class has no score, the score of the first class decides.
    """
    b, base = c.build, _base(c)
    total = _sum(c, trees)
    first, second = (b.op("Gather", total, b.ints(position), axis=1) for position in (0, 1))
    # Whether all weights belong to one class.
    is_single = NEVER in trees.facts.given
    is_probability = is_single and trees.facts.are_positive

    def add(x: str, position: int) -> str:
        return b.op("Add", x, b.constant(base[position], np.float32))

    def both(*pair: str) -> str:
        """Build the scores (N, 2) of both classes: the post transform of the two scores `pair`. A class for which no
        leaf has a score gets 0, whatever its base value.
        """
        zero = b.constant(0, np.float32)
        given = trees.facts.given
        parts = [b.op("Mul", each, zero) if given[position] == NEVER else each for position, each in enumerate(pair)]
        scores = b.op("Concat", *parts, axis=1)
        scores = b.op("Where", _has_score(c, trees), scores, zero) if SOMETIMES in given else scores
        return post_transformed(c, scores, transform)

    def without_second() -> tuple[str, str]:
        """The score that decides the label, and the scores (N, 2) of both classes, for rows in which the second class
        has no score.
        """
        if base.size == 2:
            decisive = add(first, 0)
            return decisive, both(decisive, second)
        score = add(first, 0) if base.size == 1 else first
        if transform == "PROBIT" or (base.size == 1 and not is_single):
            raise Refusal("ONNX Runtime computes one score of the two, and leaves the other as it finds it")
        return score, both_classes(c, score, transform, is_probability=is_probability)

    def with_second() -> tuple[str, str]:
        if base.size == 2:
            decisive = add(first, 1)
            return decisive, both(b.op("Neg", decisive), decisive)
        return second, both(add(first, 0) if base.size == 1 else first, second)

    match trees.facts.given[1]:
        case given if given == ALWAYS:
            decisive, scores = with_second()
        case given if given == NEVER:
            decisive, scores = without_second()
        case _:
            has_second = b.op("Gather", _has_score(c, trees), b.ints(1), axis=1)
            ways = [with_second(), without_second()]
            decisive, scores = (b.op("Where", has_second, *each) for each in zip(*ways, strict=True))
    c.give(scores, 1)
    position = b.cast(
        b.op("Greater", decisive, b.constant(0.5 if is_probability else 0, np.float32)), TensorProto.INT32
    )
    # If both classes have weights, ONNX Runtime gives the labels 0 and 1, whatever the class labels are.
    give_label(c, b.op("Squeeze", position, b.ints(1)), None if is_single else [0, 1])


TABLE: dict[str, Decomposition] = {
    "TreeEnsemble": tree_ensemble,
    "TreeEnsembleRegressor": tree_ensemble_regressor,
    "TreeEnsembleClassifier": tree_ensemble_classifier,
}
