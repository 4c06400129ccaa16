"""Random ensembles of trees, in core ops, answer as ONNX Runtime answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import numpy_helper

from support.contrib.case import Case, classical, computed, difference, lowered_opset
from support.contrib.forests import EQ, GT, GTE, LEQ, LT, NEQ, NUM_FEATURES, SPLITS, forest
from support.examples import examples
from triune.graph.normalize import foreign_ops, normalize

MODES = (LEQ, LT, GTE, GT, EQ, NEQ)
# SOFTMAX_ZERO treats a score as absent where it is 0, PROBIT takes numbers between 0 and 1: `test_contrib` has both.
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC")


@st.composite
def features(draw: st.DrawFn) -> Any:
    """Rows of features that are equal to splits, near them, infinite or missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.concatenate([SPLITS, np.nextafter(SPLITS, np.float32(9)), [-5, 5, np.inf, -np.inf, -0.0]])
    x = rng.choice(values, (draw(st.integers(1, 20)), NUM_FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < draw(st.sampled_from((0.0, 0.4)))] = np.nan
    return x


@st.composite
def options(draw: st.DrawFn, per_leaf: Sequence[str]) -> dict[str, Any]:
    """What trees are drawn at random."""
    return {
        "num_trees": draw(st.integers(1, 8)),
        "depth": draw(st.integers(0, 6)),
        "modes": draw(st.lists(st.sampled_from(MODES), min_size=1, unique=True)),
        "missing": draw(st.booleans()),
        "per_leaf": draw(st.sampled_from(per_leaf)),
        "positive": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


def bases(draw: st.DrawFn, count: int) -> dict[str, list[float]]:
    """Base values for all targets or none."""
    return {"base_values": [0.5 * each - 1 for each in range(count)]} if draw(st.booleans()) else {}


@st.composite
def regressors(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 4))
    drawn = forest("target", targets=range(count), **draw(options(("all", "one", "some", "tree"))))
    assume(drawn["target_ids"])
    attributes = drawn | bases(draw, count)
    attributes["n_targets"] = count
    attributes["aggregate_function"] = draw(st.sampled_from(("SUM", "AVERAGE", "MIN", "MAX")))
    attributes["post_transform"] = draw(st.sampled_from(TRANSFORMS)) if count > 1 else "NONE"
    return classical("TreeEnsembleRegressor", {"x": draw(features())}, attributes=attributes, atol=1e-4)


@st.composite
def classifiers(draw: st.DrawFn) -> Case:
    labels = draw(st.lists(st.integers(-9, 9), min_size=3, max_size=5, unique=True))
    # ONNX Runtime fails where the leaves of a row have no score at all.
    drawn = forest("class", targets=range(len(labels)), **draw(options(("all", "one", "tree"))))
    attributes = drawn | bases(draw, len(labels))
    attributes |= {"classlabels_int64s": labels, "post_transform": draw(st.sampled_from(TRANSFORMS))}
    outputs = {"label": np.int64, "scores": np.float32}
    return classical(
        "TreeEnsembleClassifier", {"x": draw(features())}, outputs=outputs, attributes=attributes, atol=1e-4
    )


@st.composite
def ensembles(draw: st.DrawFn) -> Case:
    """TreeEnsemble: a tree of `leaves - 1` comparisons in a row, with sets among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    trees, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    columns: dict[str, list[int]] = {
        name: [] for name in ("featureids", "truenodeids", "trueleafs", "falsenodeids", "falseleafs")
    }
    splits: list[float] = []
    modes: list[int] = []
    members: list[float] = []
    roots: list[int] = []
    num_leaves = 0
    tracks: list[int] = []
    for _ in range(trees):
        roots.append(len(modes))
        length = draw(st.integers(1, 5))
        for level in range(length):
            is_last = level == length - 1
            ahead = num_leaves + 1 if is_last else len(modes) + 1
            goes_on_if_true = draw(st.booleans())
            near, far = (num_leaves, 1), (ahead, int(is_last))
            true, false = (far, near) if goes_on_if_true else (near, far)
            mode = draw(st.sampled_from((0, 1, 2, 3, 4, 5, 6)))
            if mode == 6:
                members += [*rng.choice(np.arange(-4, 5), draw(st.integers(1, 4)), replace=False).tolist(), np.nan]
            for name, value in zip(columns, [int(rng.integers(NUM_FEATURES)), *true, *false], strict=True):
                columns[name].append(value)
            splits.append(0.0 if mode == 6 else float(rng.integers(-4, 5)))
            modes.append(mode)
            tracks.append(int(mode != 6 and rng.random() < 0.5))
            num_leaves += 1 + is_last
    attributes: dict[str, Any] = {f"nodes_{name}": values for name, values in columns.items()}
    attributes |= {
        "nodes_splits": numpy_helper.from_array(np.array(splits, np.float32), "splits"),
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8), "modes"),
        "nodes_missing_value_tracks_true": tracks,
        "tree_roots": roots,
        "leaf_targetids": rng.integers(0, count, num_leaves).tolist(),
        "leaf_weights": numpy_helper.from_array(rng.standard_normal(num_leaves).astype(np.float32), "weights"),
        "n_targets": count,
        "aggregate_function": draw(st.sampled_from((0, 1, 2, 3))),
    }
    if members:
        attributes["membership_values"] = numpy_helper.from_array(np.array(members, np.float32), "members")
    # In sets ONNX Runtime looks for the whole part of a number.
    x = rng.integers(-5, 6, (draw(st.integers(1, 20)), NUM_FEATURES)).astype(np.float32)
    return classical("TreeEnsemble", {"x": x}, attributes=attributes, atol=1e-4)


def answers_agree(case: Case) -> None:
    expected = case.expected()
    normal = normalize(case.model({name: right.shape for name, right in expected.items()}))
    assert foreign_ops(normal) == []
    for (name, right), actual in zip(expected.items(), computed(lowered_opset(normal), case.feeds()), strict=True):
        assert actual.dtype == right.dtype
        assert difference(case, name, actual, right) == ""


@given(regressors())
@examples(120)
def test_regressors(case: Case) -> None:
    answers_agree(case)


@given(classifiers())
@examples(120)
def test_classifiers(case: Case) -> None:
    answers_agree(case)


@given(ensembles())
@examples(120)
def test_version_5(case: Case) -> None:
    answers_agree(case)
