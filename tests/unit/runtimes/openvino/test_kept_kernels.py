"""How much a compiled model keeps of the shapes that it has seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.repositories import affine
from triune.core.units import Presence, Unit, UnitStatus

openvino = pytest.importorskip("openvino")

from triune.runtimes.openvino.runtime import KEPT_KERNELS, OpenVino  # noqa: E402


def test_kernels_of_a_limited_number_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    compile_model = openvino.Core.compile_model

    def noted(core: Any, model: Any, device: str, properties: dict[str, Any]) -> Any:
        given.append(properties)
        return compile_model(core, model, device, properties)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    (tmp_path / "model.onnx").write_bytes(affine())
    runtime = OpenVino([UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU")])
    executable = runtime.load(tmp_path / "model.onnx", unit=Unit.CPU, num_threads=1, options={})
    executable.run({"x": np.ones((2, 4), np.float32)}, ["y"])
    executable.close()
    assert [each["CPU_RUNTIME_CACHE_CAPACITY"] for each in given] == [KEPT_KERNELS]
