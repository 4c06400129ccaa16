"""The fusions of ONNX Runtime that models are computed with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.compressible import model_of
from support.graphs import ops_of
from triune.core.requests import Parameter
from triune.core.runtime import NO_OPTIONS
from triune.core.units import Unit
from triune.runtimes.onnxruntime import runtime
from triune.runtimes.onnxruntime.options import session_options_of


@pytest.mark.parametrize("options", [NO_OPTIONS, {"optimization.graph.level": "0"}], ids=["", "with a level"])
def test_a_sum_and_its_norm_are_not_joined(
    options: Mapping[str, Parameter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime would make SkipLayerNormalization of both, which takes longer."""
    optimized = tmp_path / "optimized.onnx"

    def saving(num_threads: int, given: Mapping[str, Parameter]) -> Any:
        settings = session_options_of(num_threads, given)
        settings.optimized_model_filepath = str(optimized)
        return settings

    monkeypatch.setattr(runtime, "session_options_of", saving)
    nodes = [
        helper.make_node("Add", ["x", "z"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "shift"], ["y"]),
    ]
    kinds = {name: (TensorProto.FLOAT, [2, 4, 8]) for name in ("x", "z")}
    weights = {"scale": np.full(8, 2, np.float32), "shift": np.full(8, 3, np.float32)}
    onnx.save(model_of(nodes, kinds, ["y"], weights), tmp_path / "model.onnx")
    executable = runtime.OnnxRuntime().load(tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options=options)
    try:
        assert sorted(ops_of(onnx.load(optimized))) == ["Add", "LayerNormalization"]
        x = np.arange(64, dtype=np.float32).reshape(2, 4, 8)
        found = executable.run({"x": x, "z": x}, ["y"])["y"]
    finally:
        executable.close()
    row = (np.arange(8) - 3.5) / np.sqrt(5.25)
    np.testing.assert_allclose(found, np.broadcast_to(row * 2 + 3, (2, 4, 8)), rtol=0, atol=1e-5)
