"""Non-maximum suppression, of which nothing may be left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, INT64, model_of
from support.lowered import check as check_core_ml
from support.lowered_coreai import check as check_core_ai

MODEL = model_of(
    [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["y"]),
        helper.make_node("Gather", ["y", "two"], ["box"], axis=1),
    ],
    [("boxes", FLOAT, [2, 3, 4]), ("scores", FLOAT, [2, 2, 3])],
    [("y", INT64, ["n", 3]), ("box", INT64, ["n"])],
    most=np.array(3),
    overlap=np.float32(0.5),
    least=np.float32(0.5),
    two=np.array(2),
)
BOXES = np.array([[[0, 0, 1, 1], [0, 0, 0.9, 1], [2, 2, 3, 3]]] * 2, np.float32)


@pytest.mark.parametrize("check", [check_core_ml, check_core_ai])
def test_nothing_is_left_where_no_score_passes(check: Any, tmp_path: Path) -> None:
    low = np.full((2, 2, 3), 0.1, np.float32)
    some = low.copy()
    some[1, 0] = 0.9, 0.8, 0.7
    for scores, left in ((low, []), (some, [[1, 0, 0], [1, 0, 2]])):
        feeds = {"boxes": BOXES, "scores": scores}
        arguments = (MODEL, feeds, tmp_path) if check is check_core_ml else (MODEL, tmp_path, feeds)
        found = check(*arguments)
        results = found if check is check_core_ml else found[0]
        np.testing.assert_array_equal(results["y"], np.reshape(left, (-1, 3)))
