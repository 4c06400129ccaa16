"""ONNX Runtime's own log: coloured lines in the midst of ours."""

from pathlib import Path

import numpy as np
import pytest

from support.graphs import model_of
from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.runtimes.onnxruntime import OnnxRuntime


def test_what_is_raised_is_not_logged_beside_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of("g (int64 n) => (float[a] y) { y = HannWindow(n) }").SerializeToString())
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    with pytest.raises(InvalidArgumentError, match="beyond 64 bits"):
        executable.run({"n": np.array(2**63 - 1)}, ["y"])
    executable.close()
    assert capfd.readouterr() == ("", "")
