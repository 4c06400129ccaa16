"""Ensembles of trees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from support.contrib.case import Case, classical

NUM_FEATURES = 5
SPLITS = np.array([-1.5, -0.75, -0.25, 0.0, 0.5, 1.25], np.float32)
LEQ, LT, GTE, GT, EQ, NEQ = "BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"


def rows(count: int = 12, *, with_nan: bool = False) -> Any:
    """Rows of features that are below, equal to, and above the thresholds of the trees."""
    rng = np.random.default_rng(3)
    x = rng.choice(np.concatenate([SPLITS, SPLITS + 0.1, [5, -5]]), (count, NUM_FEATURES)).astype(np.float32)
    if with_nan:
        x[rng.random(x.shape) < 0.3] = np.nan
    return x


def forest(
    prefix: str,
    *,
    num_trees: int = 3,
    depth: int = 3,
    modes: Sequence[str] = (LEQ,),
    missing: bool = False,
    targets: Sequence[int] = (0,),
    per_leaf: str = "all",
    positive: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """The attributes of random trees of different depths.

    `per_leaf` says for which targets a leaf has a weight: for `all` targets, for `one`, for the one that belongs to its
    `tree`, or for `some`.
    """
    rng = np.random.default_rng(seed)
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    }
    nodes["missing_value_tracks_true"] = []
    weights: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add(tree: int, number: int, level: int) -> int:
        """Add the nodes of a subtree in depth-first order. Returns the next free node number."""
        is_leaf = level == 0 or (level < depth and rng.random() < 0.2)
        place = len(nodes["modes"])
        values = [tree, number, 0, 0.0, "LEAF", 0, 0, 0]
        if not is_leaf:
            feature, split = int(rng.integers(NUM_FEATURES)), float(rng.choice(SPLITS))
            tracks = int(missing and rng.random() < 0.5)
            values = [tree, number, feature, split, str(rng.choice(list(modes))), 0, 0, tracks]
        for name, value in zip(nodes, values, strict=True):
            nodes[name].append(value)
        if is_leaf:
            chosen = {
                "all": list(targets),
                "one": [int(rng.choice(list(targets)))],
                "tree": [targets[tree % len(targets)]],
                "some": [each for each in targets if rng.random() < 0.5],
            }[per_leaf]
            for target in chosen:
                weight = rng.random() if positive else rng.standard_normal()
                for name, value in zip(weights, [tree, number, target, float(weight)], strict=True):
                    weights[name].append(value)
            return number + 1
        nodes["truenodeids"][place] = number + 1
        after = add(tree, number + 1, level - 1)
        nodes["falsenodeids"][place] = after
        return add(tree, after, level - 1)

    for tree in range(num_trees):
        add(tree, 0, depth)
    found = {f"nodes_{name}": values for name, values in nodes.items()}
    if not missing:
        del found["nodes_missing_value_tracks_true"]
    return found | {f"{prefix}_{name}": values for name, values in weights.items()}


def _regressor(name: str, *, x: Any = None, base: Sequence[float] = (), count: int = 1, **options: Any) -> Case:
    named = {each: options.pop(each) for each in ("aggregate_function", "post_transform") if each in options}
    attributes = forest("target", targets=range(count), **options) | named | {"n_targets": count}
    attributes |= {"base_values": list(base)} if base else {}
    x = rows(with_nan=options.get("missing", False)) if x is None else x
    return classical(f"TreeEnsembleRegressor {name}", {"x": x}, attributes=attributes, atol=1e-4)


def _classifier(
    name: str,
    labels: Sequence[Any],
    *,
    base: Sequence[float] = (),
    transform: str = "NONE",
    reason: str = "",
    **options: Any,
) -> Case:
    options.setdefault("targets", range(len(labels)))
    attributes = forest("class", **options) | {"post_transform": transform}
    attributes |= {"base_values": list(base)} if base else {}
    kind = "strings" if isinstance(labels[0], str) else "int64s"
    attributes[f"classlabels_{kind}"] = list(labels)
    return classical(
        f"TreeEnsembleClassifier {name}",
        {"x": rows()},
        attributes=attributes,
        outputs={"label": np.int64, "scores": np.float32},
        atol=1e-4,
        reason=reason,
    )


def _version_5(
    name: str, *, count: int = 1, member: bool = False, kind: Any = np.float32, reason: str = "", **changes: Any
) -> Case:
    """Two trees of operator set version 5, with two comparisons and with one. Features, tables and results have the
    type `kind`.
    """
    modes = [0, 6 if member else 3, 1]
    attributes: dict[str, Any] = {
        "nodes_splits": numpy_helper.from_array(np.array([0.5, 0, -0.25], kind), "splits"),
        "nodes_featureids": [0, 1, 2],
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8), "modes"),
        "nodes_truenodeids": [1, 0, 2],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [1, 2, 3],
        "nodes_falseleafs": [1, 1, 1],
        "tree_roots": [0, 2],
        "leaf_targetids": [0, count - 1, 0, count - 1],
        "leaf_weights": numpy_helper.from_array(np.array([5.23, -12.12, 12.5, 7], kind), "weights"),
        "n_targets": count,
        **changes,
    }
    if member:
        members = np.array([-5, 0, 5, np.nan], kind)
        attributes["membership_values"] = numpy_helper.from_array(members, "members")
    # For some sets, ONNX Runtime looks up only the integer part of a number.
    x = (np.round(rows()) if member else rows()).astype(kind)
    outputs = {"y": kind}
    return classical(f"TreeEnsemble {name}", {"x": x}, attributes=attributes, outputs=outputs, atol=1e-4, reason=reason)


WIDE = rows().astype(np.float64)
CASES = [
    *(_regressor(mode.removeprefix("BRANCH_"), modes=[mode]) for mode in (LEQ, LT, GTE, GT, EQ, NEQ)),
    _regressor("several modes", modes=[LEQ, LT, GTE, GT, EQ, NEQ], num_trees=6, depth=4),
    _regressor("missing", missing=True),
    _regressor("missing in several modes", missing=True, modes=[LEQ, LT, GTE, GT, EQ, NEQ], num_trees=6, depth=4),
    _regressor("nan without tracks", x=rows(with_nan=True)),
    _regressor("nan without tracks in several modes", x=rows(with_nan=True), modes=[LT, GT, EQ, NEQ, GTE]),
    _regressor("one tree", num_trees=1),
    _regressor("one leaf", num_trees=1, depth=0),
    _regressor("leaves and trees", num_trees=9, depth=1),
    _regressor("deep", num_trees=2, depth=9),
    _regressor("many", num_trees=100, depth=5),
    _regressor("one row", x=rows(1)),
    _regressor("double", x=WIDE),
    *(
        _regressor(
            f"{function} {count} targets {per_leaf}", aggregate_function=function, count=count, per_leaf=per_leaf
        )
        for function in ("SUM", "AVERAGE", "MIN", "MAX")
        for count, per_leaf in ((1, "all"), (3, "all"), (3, "one"), (3, "some"), (3, "tree"))
    ),
    *(
        _regressor(f"{function} base", aggregate_function=function, base=[0.5, -2.0], count=2)
        for function in ("SUM", "AVERAGE", "MIN", "MAX")
    ),
    _regressor("base", base=[3.5]),
    # If no leaf of a row has a weight for a target, the target is 0 without a base value; a single target has a score
    # of 0.
    *(_regressor(f"base {leaf}", base=[0.5, -2.0, 1.0], count=3, per_leaf=leaf) for leaf in ("one", "some")),
    *(_regressor(f"{function} some", aggregate_function=function, per_leaf="some") for function in ("MIN", "MAX")),
    *(
        _regressor(f"{transform} {count} targets", post_transform=transform, count=count, positive=True, num_trees=1)
        for transform in ("SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
        for count in (1, 3)
    ),
    _regressor("SOFTMAX_ZERO some", post_transform="SOFTMAX_ZERO", count=3, per_leaf="some", num_trees=1),
    *(
        _classifier(f"{len(labels)} classes {transform} {leaf}", labels, transform=transform, per_leaf=leaf)
        for labels, leaf in (([4, 7, 2], "all"), ([4, 7, 2, 9], "tree"), ([4, 7, 2], "one"))
        for transform in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
    ),
    _classifier("3 classes PROBIT", [0, 1, 2], transform="PROBIT", positive=True, num_trees=1),
    _classifier("3 classes base", [4, 7, 2], base=[0.5, -0.5, 1.0], per_leaf="one"),
    _classifier("3 classes, of one no leaf speaks", [4, 7, 2], targets=[0, 2]),
    _classifier("3 classes, some", [4, 7, 2], per_leaf="some"),
    *(
        _classifier(
            f"2 classes by {target} {name} {transform}",
            [4, 7],
            targets=[target],
            positive=positive,
            transform=transform,
        )
        for target in (0, 1)
        for name, positive in (("positive", True), ("mixed", False))
        for transform in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")
    ),
    *(
        _classifier(f"2 classes by {target}, {len(base)} bases", [4, 7], targets=[target], base=base)
        for target in (0, 1)
        for base in ([0.25], [0.25, -0.5])
    ),
    *(
        _classifier(f"2 classes by both {transform} {per_leaf}", [4, 7], transform=transform, per_leaf=per_leaf)
        for transform in ("NONE", "LOGISTIC", "SOFTMAX")
        for per_leaf in ("all", "one", "some")
    ),
    _classifier("2 classes by both, bases", [4, 7], base=[0.25, -0.5]),
    *(
        _classifier(f"2 classes by both, bases {leaf}", [4, 7], base=[0.25, -0.5], per_leaf=leaf)
        for leaf in ("one", "some")
    ),
    _classifier("2 classes by both, probabilities", [0, 1], positive=True),
    _version_5(""),
    _version_5("two targets", count=2),
    _version_5("member", member=True),
    _version_5("double", kind=np.float64, count=2),
    _version_5("double member", kind=np.float64, member=True),
    *(_version_5(f"aggregate {each}", count=2, aggregate_function=each) for each in range(4)),
    _version_5("SOFTMAX_ZERO", count=2, post_transform=3),
    *(_version_5(f"transform {each}", count=2, post_transform=each, reason="differently") for each in (1, 2)),
    _version_5("missing", nodes_missing_value_tracks_true=[1, 0, 1]),
]
