"""Ensembles of decision trees: ONNX's list attributes, with one element for each node, are read as numpy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, numpy_helper

from triune.graph.conversion.problems import Refusal

Array: TypeAlias = NDArray[Any]

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")
"""ONNX's names of the comparisons. TreeEnsemble stores indices in this list, the older operators store the names."""

_EQ, _MEMBER, _LEAF = (MODES.index(name) for name in ("BRANCH_EQ", "BRANCH_MEMBER", "LEAF"))
_CODES = {name.encode(): code for code, name in enumerate(MODES)}
_LONG = ("nodes_", "target_", "class_", "leaf_", "tree_roots", "membership_values")


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Decision trees. The nodes of all trees are numbered together, leaves first.

    Attributes:
        roots: (trees,) the number of each tree's root.
        features: (nodes,) the index of the feature that a node compares; 0 for a leaf.
        splits: (nodes,) fp32, the threshold that the feature is compared with.
        modes: (nodes,) the comparisons, as indices in MODES; BRANCH_LEQ for a leaf.
        tracks_missing: (nodes,) whether NaN takes the true branch.
        if_true: (nodes,) the next node if the comparison is true; for a leaf, the leaf itself.
        if_false: (nodes,) the next node if the comparison is false; for a leaf, the leaf itself.
        scores: (leaves, targets) fp32; 0 if a leaf has no score for a target.
        given: (leaves, targets) whether the leaf has a score for the target.
        depth: the largest number of comparisons from a root to a leaf.
    """

    roots: Array
    features: Array
    splits: Array
    modes: Array
    tracks_missing: Array
    if_true: Array
    if_false: Array
    scores: Array
    given: Array
    depth: int

    def target_of_trees(self) -> Array | None:
        """(trees,) the target for which each tree has scores; None if a tree has scores for several targets."""
        if not (self.given.sum(axis=1) == 1).all():
            return None
        leaves = np.arange(len(self.given))
        tree = self._tree_of_nodes()[leaves]
        target = self.given.argmax(axis=1)
        of_trees = np.full(len(self.roots), -1)
        of_trees[tree] = target
        return of_trees if (of_trees[tree] == target).all() and (of_trees >= 0).all() else None

    def _tree_of_nodes(self) -> Array:
        """The index of each node's tree; shape (nodes,)."""
        tree = np.zeros(len(self.features), np.int64)
        front, owner = self.roots, np.arange(len(self.roots))
        while front.size:
            tree[front] = owner
            inner = front >= len(self.scores)
            front, owner = front[inner], owner[inner]
            front = np.concatenate([self.if_true[front], self.if_false[front]])
            owner = np.concatenate([owner, owner])
        return tree


def is_long(name: str) -> bool:
    """Whether an attribute is a list with an element for each node or leaf."""
    return name.startswith(_LONG)


def ensemble_of(node: NodeProto, num_targets: int) -> Ensemble:
    """The trees of a TreeEnsemble, TreeEnsembleRegressor or TreeEnsembleClassifier.

    Raises:
        Refusal: the attributes are not valid trees.
    """
    arrays = {each.name: _array(each) for each in node.attribute if is_long(each.name)}
    build = _of_version_5 if node.op_type == "TreeEnsemble" else _of_older
    try:
        return build(arrays, num_targets)
    except (KeyError, IndexError, ValueError) as error:
        raise Refusal(f"its attributes make no trees: {error}; export the model again") from error


def _array(attribute: AttributeProto) -> Array:
    """The elements of an attribute as an array. No list of Python objects is made, since it would be far larger."""
    match attribute.type:
        case AttributeProto.INTS:
            return np.fromiter(attribute.ints, np.int64, len(attribute.ints))
        case AttributeProto.FLOATS:
            return np.fromiter(attribute.floats, np.float32, len(attribute.floats))
        case AttributeProto.STRINGS:
            names = attribute.strings
            return np.fromiter((_CODES.get(name, -1) for name in names), np.int8, len(names))
        case AttributeProto.TENSOR:
            return numpy_helper.to_array(attribute.t)
        case _:
            raise Refusal(f"its attribute '{attribute.name}' is no list of numbers; export the model again")


def _either(arrays: Mapping[str, Array], *names: str) -> Array:
    """The first of the attributes `names` that exists and is not empty. Raises KeyError if there is none."""
    found = next((arrays[name] for name in names if name in arrays and arrays[name].size), None)
    if found is None:
        raise KeyError(f"there is no {' or '.join(names)}")
    return found


def _of_older(arrays: Mapping[str, Array], num_targets: int) -> Ensemble:
    """The trees of the older operators, which identify a node by the number of its tree and its number in that tree."""
    kind = "class" if "class_ids" in arrays else "target"
    trees, ids = arrays["nodes_treeids"], arrays["nodes_nodeids"]
    width = int(ids.max()) + 1
    keys = trees * width + ids
    order = np.argsort(keys, kind="stable")

    def found(tree: Array, node: Array) -> Array:
        wanted = tree * width + node
        positions = order[np.searchsorted(keys, wanted, sorter=order).clip(0, len(order) - 1)]
        if (keys[positions] != wanted).any() or (node < 0).any() or (node >= width).any():
            raise ValueError("a branch or weight names a node that is not there")
        return positions

    modes = arrays["nodes_modes"]
    if (modes < 0).any():
        raise ValueError("a node's mode is none of ONNX's")
    inner = np.flatnonzero(modes != _LEAF)
    if_true, if_false = np.arange(len(ids)), np.arange(len(ids))
    if_true[inner] = found(trees[inner], arrays["nodes_truenodeids"][inner])
    if_false[inner] = found(trees[inner], arrays["nodes_falsenodeids"][inner])
    is_child = np.zeros(len(ids), bool)
    is_child[if_true[inner]] = is_child[if_false[inner]] = True
    leaf = found(arrays[f"{kind}_treeids"], arrays[f"{kind}_nodeids"])
    weights = _either(arrays, f"{kind}_weights", f"{kind}_weights_as_tensor")
    missing = arrays.get("nodes_missing_value_tracks_true", np.zeros(0))
    return _numbered(
        roots=np.flatnonzero(~is_child),
        features=arrays["nodes_featureids"],
        splits=_either(arrays, "nodes_values", "nodes_values_as_tensor"),
        modes=modes,
        missing=missing if missing.size else np.zeros(len(ids), np.int64),
        if_true=if_true,
        if_false=if_false,
        weights=(leaf, arrays[f"{kind}_ids"], weights),
        num_targets=num_targets,
    )


def _of_version_5(arrays: Mapping[str, Array], num_targets: int) -> Ensemble:
    """The trees of TreeEnsemble (ai.onnx.ml version 5), which identifies nodes and leaves by index, each from 0."""
    modes, splits = arrays["nodes_modes"].astype(np.int8), _either(arrays, "nodes_splits").astype(np.float32)
    features = arrays["nodes_featureids"]
    num_nodes, num_leaves = len(modes), len(arrays["leaf_targetids"])
    missing = arrays.get("nodes_missing_value_tracks_true", np.zeros(0))
    missing = missing if missing.size else np.zeros(num_nodes, np.int64)

    def children(kind: str) -> Array:
        positions = arrays[f"nodes_{kind}nodeids"]
        limits = np.where(arrays[f"nodes_{kind}leafs"] != 0, num_leaves, num_nodes)
        if (positions < 0).any() or (positions >= limits).any():
            raise ValueError("a branch names a node or leaf that is not there")
        return positions + np.where(arrays[f"nodes_{kind}leafs"] != 0, num_nodes, 0)

    fill = np.zeros(num_leaves, np.int64)
    leaves = np.arange(num_nodes, num_nodes + num_leaves)
    columns = {
        "features": np.concatenate([features, fill]),
        "splits": np.concatenate([splits, fill.astype(np.float32)]),
        "modes": np.concatenate([modes, np.full(num_leaves, _LEAF, np.int8)]),
        "missing": np.concatenate([missing, fill]),
        "if_true": np.concatenate([children("true"), leaves]),
        "if_false": np.concatenate([children("false"), leaves]),
    }
    if (modes == _MEMBER).any():
        columns = _without_members(columns, arrays["membership_values"])
    weights = (leaves, arrays["leaf_targetids"], arrays["leaf_weights"])
    return _numbered(roots=arrays["tree_roots"], weights=weights, num_targets=num_targets, **columns)


def _without_members(columns: Mapping[str, Array], members: Array) -> dict[str, Array]:
    """Replace each BRANCH_MEMBER node ("is the feature in this set?") by a chain of BRANCH_EQ nodes.

    `columns` has an array (nodes,) for each property of nodes; the nodes that a chain needs more are appended.
    `members` has the sets one after the other, each ended by a NaN.
    """
    found: dict[str, list[Any]] = {name: array.tolist() for name, array in columns.items()}
    ends = np.flatnonzero(np.isnan(members))
    starts = np.concatenate([[0], ends[:-1] + 1])
    nodes = np.flatnonzero(columns["modes"] == _MEMBER)
    for node, start, end in zip(nodes.tolist(), starts.tolist(), ends.tolist(), strict=True):
        chain = [node, *range(len(found["modes"]), len(found["modes"]) + end - start - 1)]
        for values in found.values():
            values += [values[node]] * (len(chain) - 1)
        for position, value, following in zip(chain, members[start:end].tolist(), [*chain[1:], None], strict=True):
            found["modes"][position], found["splits"][position] = _EQ, value
            if following is not None:
                found["if_false"][position] = following
    return {name: np.array(values, columns[name].dtype) for name, values in found.items()}


def _numbered(
    *,
    roots: Array,
    features: Array,
    splits: Array,
    modes: Array,
    missing: Array,
    if_true: Array,
    if_false: Array,
    weights: Sequence[Array],
    num_targets: int,
) -> Ensemble:
    """Renumber the nodes so that the leaves come first. `weights` has three arrays with an element for each weight: its
    node, its target and its value.
    """
    is_leaf = modes == _LEAF
    order = np.argsort(~is_leaf, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    num_leaves = int(is_leaf.sum())
    leaf, target, weight = weights
    positions, is_counted = number[leaf], is_leaf[leaf]
    scores = np.zeros((num_leaves, num_targets), np.float32)
    given = np.zeros((num_leaves, num_targets), bool)
    np.add.at(scores, (positions[is_counted], target[is_counted]), weight[is_counted])
    given[positions[is_counted], target[is_counted]] = True
    true, false = (number[branch][order].astype(np.int32) for branch in (if_true, if_false))
    return Ensemble(
        roots=number[roots].astype(np.int32),
        features=np.where(is_leaf, 0, features)[order].astype(np.int32),
        splits=splits[order].astype(np.float32),
        modes=np.where(is_leaf, 0, modes)[order],
        tracks_missing=(np.where(is_leaf, 0, missing)[order]) != 0,
        if_true=true,
        if_false=false,
        scores=scores,
        given=given,
        depth=_depth(number[roots], true, false, num_leaves),
    )


def _depth(roots: Array, if_true: Array, if_false: Array, num_leaves: int) -> int:
    """The largest number of comparisons from a root to a leaf."""
    depth, front = 0, roots[roots >= num_leaves]
    while front.size:
        depth += 1
        if depth > len(if_true):
            raise ValueError("branches lead in a circle")
        front = np.unique(np.concatenate([if_true[front], if_false[front]]))
        front = front[front >= num_leaves]
    return depth
