"""Quantized weights of Core AI programs on the way back to ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from support.lowered import model_of
from triune.coreai.lowering import lower

pytest.importorskip("coreai")
from triune.coreai.raising import raise_function


@pytest.mark.parametrize("zero", [np.int8(0), np.int8(3), np.arange(-2, 3, dtype=np.int8)])
def test_products_of_integers_are_exact_with_onnx_runtimes_default_options(zero: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(-128, 128, (40, 5)).astype(np.int8)
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"])]
    model = model_of(
        nodes,
        [("x", TensorProto.UINT8, [2, 3, 40])],
        [("y", TensorProto.INT32, [2, 3, 5])],
        w=weights,
        xz=np.array(130, np.uint8),
        wz=np.asarray(zero),
    )
    raised = raise_function(lower(model, tmp_path / "m.aimodel").path, keep_quantized=True)
    x = rng.integers(0, 256, (2, 3, 40)).astype(np.uint8)
    session: Any = ort.InferenceSession(raised.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    found = session.run(None, {given.name: x.astype(np.int32)})[0]
    right = (x.astype(int) - 130) @ (weights.astype(int) - np.asarray(zero).astype(int))
    np.testing.assert_array_equal(found, right)
