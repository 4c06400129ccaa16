"""Adaptive pools as PyTorch writes them: elements that are gathered along six axes, which Core ML does not have."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from support.lowered import FLOAT, check, model_of
from triune.core.errors import UnsupportedError
from triune.coreml.lowering import lower

ROWS = np.array([[0, 1, 2, 3], [3, 4, 5, 6]])
COLUMNS = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 5]])
INDICES = np.stack(np.broadcast_arrays(ROWS[:, :, None, None], COLUMNS[None, None]), -1)
MASK = np.array([[False, False, False], [False, False, False], [False, False, True]])

GATHERED = [
    helper.make_node("Transpose", ["x"], ["t"], perm=[2, 3, 0, 1]),
    helper.make_node("GatherND", ["t", "indices"], ["g"]),
    helper.make_node("Transpose", ["g"], ["w"], perm=[4, 5, 0, 1, 2, 3]),
]
POOLS = {
    "a mean": [helper.make_node("ReduceMean", ["w", "axes"], ["y"], keepdims=0)],
    "a mean of some": [
        helper.make_node("Where", ["mask", "zero", "w"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=0),
        helper.make_node("Div", ["s", "counts"], ["y"]),
    ],
    "a mean in steps": [
        helper.make_node("ReduceMax", ["w", "first"], ["m"], keepdims=1),
        helper.make_node("Mul", ["m", "one"], ["o"]),
        helper.make_node("ReduceSum", ["o", "axes"], ["y"], keepdims=0),
    ],
    "elements one by one": [
        helper.make_node("Gather", ["w", "k"], ["a"], axis=3),
        helper.make_node("Gather", ["a", "k"], ["b"], axis=-1),
        helper.make_node("Gather", ["w", "j"], ["c"], axis=-3),
        helper.make_node("Gather", ["c", "j"], ["d"], axis=4),
        helper.make_node("Add", ["b", "d"], ["y"]),
    ],
}
CONSTANTS = {
    "indices": INDICES,
    "axes": np.array([-3, -1]),
    "first": np.array([3]),
    "mask": MASK,
    "zero": np.float32(0),
    "one": np.full((1, 1, 1, 1, 1, 1), 2, np.float32),
    "counts": np.array([12, 12, 8], np.float32),
    "k": np.array(2),
    "j": np.array(0),
}


@pytest.mark.parametrize("pool", POOLS)
def test_batch_and_channels_are_one_axis_until_the_windows_are_gone(pool: str, tmp_path: Path) -> None:
    model = model_of([*GATHERED, *POOLS[pool]], [("x", FLOAT, [2, 3, 7, 6])], [("y", FLOAT, [2, 3, 2, 3])], **CONSTANTS)
    check(model, {"x": np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)}, tmp_path)


def test_axes_that_are_parted_before_are_refused(tmp_path: Path) -> None:
    nodes = [*GATHERED[:2], helper.make_node("ReduceMax", ["g", "last"], ["y"], keepdims=1)]
    model = model_of(
        nodes, [("x", FLOAT, [2, 3, 7, 6])], [("y", FLOAT, [2, 4, 3, 3, 2, 1])], last=np.array([5]), indices=INDICES
    )
    with pytest.raises(UnsupportedError, match="limit is rank 5"):
        lower(model, tmp_path / "m.mlpackage")
