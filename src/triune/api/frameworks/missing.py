"""Let skl2onnx write which way a tree of scikit-learn sends a missing value (NaN)."""

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from triune.api.frameworks.result import library

_CONVERTERS: Final = ("decision_tree", "gradient_boosting", "isolation_forest", "random_forest")
"""The modules of skl2onnx (1.20) that write trees, each by the function `add_tree_to_attribute_pairs`."""

_LOCK: Final = threading.Lock()


@contextmanager
def directions_of_missing() -> Generator[None]:
    """A context in which skl2onnx writes where trees send NaN: it leaves this out, although ONNX's trees have an
    attribute for it. Other threads wait.
    """
    written = library("skl2onnx.common.tree_ensemble").add_tree_to_attribute_pairs

    def write(attributes: dict[str, Any], is_classifier: bool, tree: Any, *rest: Any, **options: Any) -> None:
        written(attributes, is_classifier, tree, *rest, **options)
        is_branch = tree.children_left >= 0
        ways = (tree.missing_go_to_left * is_branch).astype(int).tolist()
        attributes["nodes_missing_value_tracks_true"][-tree.node_count :] = ways

    with _LOCK, ExitStack() as patches:
        for name in _CONVERTERS:
            module = library(f"skl2onnx.operator_converters.{name}")
            patches.enter_context(patch.object(module, "add_tree_to_attribute_pairs", write))
        yield
