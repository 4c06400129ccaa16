"""Elements of packed weights by constant indices, of which Apple's compiler takes them itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from support.apple_lowered import check
from support.graphs import model_of
from triune.coreai.lowering import LowerOptions
from triune.graph.conversion.options import Precision

_INDICES: dict[str, Any] = {
    "one": np.array(-1),
    "row": np.array([3, -1, 0, -9]),
    "table": np.array([[3, -1], [-4, -2]]),
    "columns": np.array([[3, -1, 0, -4]] * 9),
    "places": np.array([[3, -1], [-9, 0], [-1, -4]]),
    "rows": np.array([[-1], [-9]]),
    "own": np.array([[-1], [-4], [0], [1], [2], [-2], [-3], [3], [-1]]),
    "steps": np.array([-2]),
    "from": np.array([-1]),
    "to": np.array([-8]),
    "first": np.array([0]),
}

_TEXT = """agraph (float[2] x) => (a, b, c, d, e, f, g, h, i, k, l) <float[3] u = {100, 200, 300}> {
    w = DequantizeLinear <axis = 0> (q, scales)
    a = Gather (w, one)
    b = Gather (w, row)
    c = Gather <axis = 1> (w, table)
    d = GatherElements <axis = 1> (w, columns)
    e = GatherND (w, places)
    f = GatherND (w, rows)
    g = GatherND <batch_dims = 1> (w, own)
    h = ScatterND (w, places, u)
    i = ScatterND <reduction = "add"> (w, places, u)
    k = ScatterElements <axis = 1> (w, columns, w)
    l = Slice (w, from, to, first, steps)
    z = Relu (x)
}"""


@pytest.mark.parametrize(("precision", "rtol"), [(Precision.FP32, 1e-5), (Precision.FP16, 2e-3)])
def test_negative_indices_count_from_the_end(tmp_path: Path, precision: Precision, rtol: float) -> None:
    """Counted from the front, they were numbers of foreign memory."""
    model = model_of(_TEXT, opset=21)
    for output in model.graph.output:
        output.type.tensor_type.elem_type = 1
    rng = np.random.default_rng(0)
    weights = {"q": rng.integers(-127, 127, (9, 4)).astype(np.int8), "scales": rng.random(9).astype(np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in (_INDICES | weights).items())
    check(model, {"x": np.zeros(2, np.float32)}, tmp_path, LowerOptions(precision=precision), atol=1e-3, rtol=rtol)


@pytest.mark.parametrize(("batch", "count"), [("1", "n"), ("3", "n"), ("n", "1"), ("n", "3"), ("n", "m")])
def test_sequences_of_which_only_some_sizes_are_known(batch: str, count: str, tmp_path: Path) -> None:
    """Core AI did not concatenate indices of [6, ?, 1] and [6, 1, 1]."""
    model = model_of(
        f"agraph (float[6,{batch},4] x, int64[{count}] lengths) => (float[6,b,4] y) "
        "{ y = ReverseSequence <time_axis = 0, batch_axis = 1> (x, lengths) }"
    )
    size = 1 if "1" in (batch, count) else 3
    x = np.random.default_rng(0).random((6, size, 4)).astype(np.float32)
    check(model, {"x": x, "lengths": np.array([4, 6, 1][:size])}, tmp_path)
