"""Make up rows of features that tell where the export of an estimator answers otherwise: with zeros, NaN, and numbers
of categories.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from triune.core.datatypes import Array
from triune.graph.values import attributes_of

NUM_ROWS: Final = 64
"""The number of rows of each set that is made up."""

_SHARE: Final = 0.3
"""The share of features that are zero or NaN."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A set of inputs.

    Attributes:
        what: what is special about it, for messages: "rows with NaN".
        arrays: the inputs by name, each [rows, ...].
        is_sure: whether an export must answer it as the estimator does. Numbers with fractions are no categories:
            exports make them whole, estimators do not.
        has_missing: whether there is NaN among the features.
    """

    what: str
    arrays: Mapping[str, Array]
    is_sure: bool = True
    has_missing: bool = False


def revealing_rows(model: ModelProto, sample: Mapping[str, Array], *, is_given: bool) -> list[Rows]:
    """Make up sets of rows.

    Args:
        model: the exported model.
        sample: an array for each input. Its rows are repeated in each set.
        is_given: whether `sample` has the user's rows, which are changed only for zeros and NaN. Otherwise floats are
            drawn from a normal distribution.
    """
    random = np.random.default_rng(0)
    rows = {name: np.resize(array, (NUM_ROWS, *array.shape[1:])) for name, array in sample.items() if array.ndim}
    if len(rows) < len(sample) or any(not array.size for array in sample.values()):
        return [Rows("", sample)]
    floats = [name for name, array in rows.items() if array.dtype.kind == "f"]
    sets = [Rows("", sample)] if is_given else []
    if not is_given:
        rows = rows | {name: random.standard_normal(rows[name].shape).astype(rows[name].dtype) for name in floats}
        is_categorical = takes_categories(model)
        sets.append(Rows("rows of numbers with fractions" if is_categorical else "", rows, is_sure=not is_categorical))
        if is_categorical:
            rows = rows | {name: random.integers(0, 2, rows[name].shape).astype(rows[name].dtype) for name in floats}
            sets.append(Rows("rows of zeros and ones", rows))
            rows = rows | {name: random.integers(0, 6, rows[name].shape).astype(rows[name].dtype) for name in floats}
            sets.append(Rows("rows of whole numbers", rows))
    if floats:
        sets.append(Rows("rows with zeros", _changed(rows, floats, 0.0, random)))
        sets.append(Rows("rows with NaN", _changed(rows, floats, np.nan, random), has_missing=True))
    return sets


def takes_categories(model: ModelProto) -> bool:
    """Whether an exported model compares features with the numbers of categories."""
    return any(
        node.op_type in ("OneHotEncoder", "CategoryMapper") or "BRANCH_EQ" in attributes_of(node).get("nodes_modes", ())
        for node in model.graph.node
    )


def _changed(
    rows: Mapping[str, Array], floats: list[str], value: float, random: np.random.Generator
) -> dict[str, Array]:
    """The rows, where some features are replaced by `value`."""
    changed: dict[str, Array] = dict(rows)
    for name in floats:
        mask: Any = random.random(rows[name].shape) < _SHARE
        changed[name] = np.where(mask, rows[name].dtype.type(value), rows[name])
    return changed
