"""Models of fp32 that compute in fp16, by Apple's interpreter against ONNX Runtime in fp32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support.apple_lowered import check
from support.lowered import FLOAT, model_of
from triune.coreai.lowering import LowerOptions
from triune.graph.conversion.options import Precision

RNG = np.random.default_rng(7)
FP16 = LowerOptions(precision=Precision.FP16)


def noise(*shape: int) -> Any:
    return np.asarray(RNG.random(shape, np.float32) * 2 - 1, np.float32)


def test_a_block_of_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
        helper.make_node("MaxPool", ["r"], ["q"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
        helper.make_node("Sub", ["p", "q"], ["d"]),
        helper.make_node("MatMul", ["d", "matrix"], ["m"]),
        helper.make_node("LayerNormalization", ["m", "gain"], ["y"]),
    ]
    constants = {"w": noise(4, 3, 3, 3), "b": noise(4), "scale": noise(4), "shift": noise(4), "mean": noise(4)}
    constants |= {"variance": noise(4) ** 2 + 0.5, "matrix": noise(4, 6), "gain": noise(6)}
    model = model_of(nodes, [("x", FLOAT, ["n", 3, 8, 8])], [("y", FLOAT, ["n", 4, 4, 6])], **constants)
    check(model, {"x": noise(2, 3, 8, 8)}, tmp_path, FP16, atol=2e-2, rtol=2e-2)


def test_kept_nodes_compute_beyond_fp16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceMean", ["square", "last"], ["mean"]),
        helper.make_node("Sqrt", ["mean"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])], last=np.array([-1]))
    options = LowerOptions(precision=Precision.MIXED, keep_fp32=frozenset({"Mul", "ReduceMean", "Sqrt"}))
    check(model, {"x": noise(2, 8) * 3000}, tmp_path, options, atol=2e-3, rtol=2e-3)


def test_hidden_places_stay_hidden(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Where", ["hidden", "low", "x"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["y"]),
    ]
    inputs = [("x", FLOAT, [2, "n"]), ("hidden", 9, [2, "n"])]
    model = model_of(nodes, inputs, [("y", FLOAT, [2, "n"])], low=np.float32(-3.4e38))
    hidden = np.array([[True, False, False], [True, True, True]])
    check(model, {"x": noise(2, 3), "hidden": hidden}, tmp_path, FP16, atol=1e-3)


def test_quantized_weights_in_fp16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["dense"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "dense"], ["y"]),
    ]
    weight, scale = RNG.integers(-128, 128, (8, 6)).astype(np.int8), np.abs(noise(2, 6)) / 100
    model = model_of(nodes, [("x", FLOAT, [3, 8])], [("y", FLOAT, [3, 6])], w=weight, s=scale)
    check(model, {"x": noise(3, 8)}, tmp_path, FP16, atol=1e-2)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "CumSum"])
def test_sums_are_made_in_fp32(op: str, tmp_path: Path) -> None:
    # In fp16 the sum of each 4096 is infinite; so is 4096 + 1 = 4096 on the way.
    places = np.array(-1) if op == "CumSum" else np.array([-1])
    nodes = [helper.make_node(op, ["x", "a"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, [2, 4096])], [("y", FLOAT, [2, 4096 if op == "CumSum" else 1])], a=places)
    level = {"ReduceMean": 1000, "ReduceSum": 2, "CumSum": 1.3}[op]
    check(model, {"x": np.full((2, 4096), level, np.float32)}, tmp_path, FP16, atol=0, rtol=1e-3)


def test_means_that_are_written_as_sums(tmp_path: Path) -> None:
    """As magika's layer normalization does: the sum of squares is beyond fp16, their mean is not."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceSum", ["square", "last"], ["sum"]),
        helper.make_node("Mul", ["sum", "share"], ["y"]),
    ]
    constants = {"last": np.array([-1]), "share": np.float32(1 / 512)}
    model = model_of(nodes, [("x", FLOAT, [1, 512])], [("y", FLOAT, [1, 1])], **constants)
    check(model, {"x": noise(1, 512) * 50}, tmp_path, FP16, atol=0, rtol=2e-3)
