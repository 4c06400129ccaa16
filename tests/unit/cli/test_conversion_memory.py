"""How much memory a conversion takes: at most three times the weights, beside what the libraries themselves take."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

COUNT = 6
"""Weights of a model; each is a square."""


def save(path: Path, size: int, *, beside: bool) -> int:
    """A chain of products with `size` columns; how many bytes its weights are."""
    rng = np.random.default_rng(0)
    weights = [rng.random((size, size), np.float32) - np.float32(0.5) for _ in range(COUNT)]
    nodes = [helper.make_node("MatMul", [f"x{place}", f"w{place}"], [f"x{place + 1}"]) for place in range(COUNT)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x0", f"x{COUNT}")]
    initializers = [numpy_helper.from_array(each, f"w{place}") for place, each in enumerate(weights)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data")
    return sum(each.nbytes for each in weights)


_RUN_AND_TELL = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def peak_bytes(source: Path, output: Path, precision: str) -> int:
    """The most that `triune convert` held at a time; run by a small process, whose own size counts as its child's."""
    command = [sys.executable, "-m", "triune", "convert", source, "-o", output, "--precision", precision, "--no-verify"]
    told = subprocess.run([sys.executable, "-c", _RUN_AND_TELL, *command], check=True, capture_output=True, text=True)
    code, peak = map(int, told.stdout.split())
    assert code == 0
    # Linux counts in KiB, macOS in bytes.
    return peak * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize(("kind", "precision", "beside"), [("mlpackage", "fp16", True), ("aimodel", "fp32", False)])
def test_a_conversion_holds_its_weights_three_times_at_most(
    tmp_path: Path, kind: str, precision: str, beside: bool
) -> None:
    if kind == "aimodel":
        pytest.importorskip("coreai")
    peaks: dict[int, int] = {}
    num_bytes = 0
    for size in (8, 2500):
        num_bytes = save(tmp_path / f"{size}.onnx", size, beside=beside)
        peaks[size] = peak_bytes(tmp_path / f"{size}.onnx", tmp_path / f"{size}.{kind}", precision)
    assert num_bytes > 149e6
    ratio = (peaks[2500] - peaks[8]) / num_bytes
    assert ratio < 3, f"{ratio:.2f} times the weights"
