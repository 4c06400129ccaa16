import functools
import itertools
from collections.abc import Iterator, Mapping
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
from triune.hosting import HostedExecutable
from triune.runtimes import available, missing
from triune.runtimes.mlx import Mlx
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.runtimes.reference import Reference


class HostedOnnxRuntime(OnnxRuntime):
    """ONNX Runtime with each executable in a process of its own."""

    def load(self, path: Path, *, unit: Unit, num_threads: int, options: Mapping[str, Parameter]) -> HostedExecutable:
        load = functools.partial(OnnxRuntime().load, path, unit=unit, num_threads=num_threads, options=dict(options))
        return HostedExecutable(load, f"'{path}'")


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

    @property
    def is_mlx(self) -> bool:
        return self.name == "mlx"

    def save(self, model: ModelProto) -> Path:
        return save(model, self.folder / f"model{next(self._names)}.onnx")

    def load(self, model: ModelProto | Path, *, num_threads: int = 1, **options: Parameter) -> Executable:
        path = model if isinstance(model, Path) else self.save(model)
        if isinstance(model, ModelProto):
            options = {**self.options(model), **options}
        executable = self.runtime.load(path, unit=self.unit, num_threads=num_threads, options=options)
        self._loaded.append(executable)
        return executable

    def options(self, model: ModelProto) -> dict[str, Parameter]:
        """The options that the runtime needs for a model."""
        return bounded(model, self.name) if self.name in CONVERTING else {}

    def close(self) -> None:
        for executable in self._loaded:
            executable.close()


def bounded(model: ModelProto, name: str) -> dict[str, Parameter]:
    """The option that limits the free dimensions of a model's inputs, which Apple's formats need."""
    given = {each.name for each in model.graph.initializer}
    shapes: list[str] = []
    for each in model.graph.input:
        sizes = each.type.tensor_type.shape.dim
        if each.name not in given and any(not size.HasField("dim_value") for size in sizes):
            dims = [str(size.dim_value) if size.HasField("dim_value") else "1..64" for size in sizes]
            shapes.append(f"{each.name}={','.join(dims)}")
    return {f"{name}.shapes": ";".join(shapes)} if shapes else {}


def _make(name: str) -> tuple[Runtime, Unit]:
    if name == "reference":
        return Reference(), Unit.CPU
    if name == "onnxruntime":
        return OnnxRuntime(), Unit.CPU
    if name == "hosted":
        return HostedOnnxRuntime(), Unit.CPU
    if name == "mlx":
        if reason := missing().get("mlx"):
            pytest.skip(reason)
        return Mlx(detect_units(read_cpu())), Unit.GPU
    if name in ("coreml", "coreai"):
        if reason := missing().get(name):
            pytest.skip(reason)
        return available(detect_units(read_cpu()))[name], Unit.CPU
    if reason := missing().get("openvino"):
        pytest.skip(reason)
    from triune.runtimes.openvino import OpenVino

    units = detect_units(read_cpu())
    unit = Unit.AMX if name == "openvino-amx" else Unit.CPU
    status = next(each for each in units if each.unit is unit)
    if status.presence is not Presence.PRESENT:
        pytest.skip(status.reason)
    return OpenVino(units), unit


CONVERTING = frozenset({"coreml", "coreai"})
"""Runtimes that convert a model first. Here they compute as they do on systems that are not Apple's."""

HOSTED = frozenset(
    {
        "test_bf16_beside_other_datatypes",
        "test_bytes_come_back_as_bytes_of_many_shapes",
        "test_an_empty_batch",
        "test_some_of_the_outputs_in_any_order",
        "test_a_model_without_inputs",
        "test_the_signature_is_the_files",
        "test_shapes_that_do_not_go_together",
        "test_a_missing_input",
        "test_unknown_options",
        "test_no_later_call_writes_to_an_output",
        "test_outputs_outlive_the_executable",
        "test_closed_again_it_does_nothing",
        "test_inputs_and_outputs_are_apart",
        "test_arrays_that_are_not_contiguous",
        "test_inputs_are_not_kept",
        "test_any_thread_may_call",
        "test_other_threads_go_on_while_it_computes",
        "test_segments_of_floats",
    }
)
"""A process takes a second to start, so it runs those tests that its transport could fail."""

CONVERTED = frozenset(
    {
        "test_some_of_the_outputs_in_any_order",
        "test_a_missing_input",
        "test_unknown_options",
        "test_outputs_outlive_the_executable",
        "test_closed_again_it_does_nothing",
        "test_inputs_and_outputs_are_apart",
        "test_arrays_that_are_not_contiguous",
        "test_files_that_are_no_models",
        "test_units_that_it_cannot_use",
        "test_segments_of_floats",
    }
)
"""A conversion takes seconds, so they run those tests that a conversion or a program could fail."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bench" in metafunc.fixturenames:
        names = ["reference", "onnxruntime", "openvino-cpu", "openvino-amx", "mlx"]
        if metafunc.module.__name__.endswith("test_whole_numbers"):
            # Its kernels for processors without VNNI saturate.
            names.remove("onnxruntime")
        names += ["hosted"] * (metafunc.function.__name__ in HOSTED)
        names += sorted(CONVERTING) * (metafunc.function.__name__ in CONVERTED)
        metafunc.parametrize("bench", names, indirect=True)


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, converts_here: None) -> Iterator[Bench]:
    bench = Bench(*_make(request.param), tmp_path)
    yield bench
    bench.close()
