import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from onnx import ModelProto

from contract.runtimes.models import save
from triune.core.requests import Parameter
from triune.core.runtime import Executable, Runtime
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes import missing
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.runtimes.reference import Reference


@dataclass
class Bench:
    """An implementation of the seam on one unit, and a folder for its models."""

    runtime: Runtime
    unit: Unit
    folder: Path
    _names: Iterator[int] = field(default_factory=itertools.count)
    _loaded: list[Executable] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.runtime.name

    @property
    def is_openvino(self) -> bool:
        return self.name == "openvino"

    def save(self, model: ModelProto) -> Path:
        return save(model, self.folder / f"model{next(self._names)}.onnx")

    def load(self, model: ModelProto | Path, *, num_threads: int = 1, **options: Parameter) -> Executable:
        path = model if isinstance(model, Path) else self.save(model)
        executable = self.runtime.load(path, unit=self.unit, num_threads=num_threads, options=options)
        self._loaded.append(executable)
        return executable

    def close(self) -> None:
        for executable in self._loaded:
            executable.close()


def _make(name: str) -> tuple[Runtime, Unit]:
    if name == "reference":
        return Reference(), Unit.CPU
    if name == "onnxruntime":
        return OnnxRuntime(), Unit.CPU
    if reason := missing().get("openvino"):
        pytest.skip(reason)
    from triune.runtimes.openvino import OpenVino

    units = detect_units(read_cpu())
    unit = Unit.AMX if name == "openvino-amx" else Unit.CPU
    status = next(each for each in units if each.unit is unit)
    if status.presence is not Presence.PRESENT:
        pytest.skip(status.reason)
    return OpenVino(units), unit


@pytest.fixture(params=["reference", "onnxruntime", "openvino-cpu", "openvino-amx"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(*_make(request.param), tmp_path)
    yield bench
    bench.close()
