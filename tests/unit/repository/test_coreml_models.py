"""Core ML packages, and ONNX models on `ane`, in a repository: found, completed, placed, loaded, asked."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from support.compiled_models import compile_package
from support.mil_models import ct, save_affine, save_classifier, save_flexible
from support.repositories import add_sub, affine
from triune.config.configure import configure, read_source
from triune.config.model_config import ModelConfig
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.requests import UNIT_PARAMETER, InferenceRequest, Parameter
from triune.core.units import Presence, Unit, UnitStatus
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode, RepositorySettings
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.coreml import CoreMl
from triune.runtimes.coreml.conversion import convert_here
from triune.runtimes.machine import Machine
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.serving.server import Server

ON_ANE = 'parameters { key: "units" value { string_value: "ane" } }'
ON_BOTH = 'parameters { key: "units" value { string_value: "cpu,ane" } }'
OWN_PROCESS = 'parameters { key: "own_process" value { string_value: "1" } }'
UNITS = (
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.AMX, Presence.ABSENT, reason="no tiles here"),
    UnitStatus(Unit.GPU, Presence.ABSENT, reason="no GPU here"),
    UnitStatus(Unit.ANE, Presence.EMULATED, reason="it is emulated"),
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    runtimes = {
        each.name: each
        for each in (OnnxRuntime(), CoreMl(UNITS, CompiledCache(tmp_path / "cache"), convert=convert_here))
    }
    return Machine(runtimes, UNITS, num_cores=2)


def put(repository: Path, name: str, source: Path | bytes, config: str = "", filename: str = "model.mlpackage") -> Path:
    """A model of one version."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    if config:
        (folder / "config.pbtxt").write_text(config)
    if isinstance(source, bytes):
        (folder / "1" / filename).write_bytes(source)
    else:
        shutil.copytree(source, folder / "1" / filename)
    return folder


def configured(folder: Path, machine: Machine) -> ModelConfig:
    return configure(read_source(folder.name, folder, stamp(folder)), 1, machine)


def test_a_package_needs_no_config(tmp_path: Path, machine: Machine) -> None:
    config = configured(put(tmp_path, "affine", save_affine(tmp_path)), machine)
    assert (config.backend, config.message.platform, config.path.name) == ("coreml", "coreml", "model.mlpackage")
    assert {name: (each.datatype.value, each.dims) for name, each in config.inputs.items()} == {"x": ("FP32", (2, 3))}
    assert {name: each.dims for name, each in config.outputs.items()} == {"y": (2, 3)}
    assert config.batching.max_batch_size == 0
    # Nobody named the emulated unit.
    assert config.units == (Unit.CPU,)


@pytest.mark.parametrize(
    "config", ['backend: "coreml"', 'platform: "coreml"', 'default_model_filename: "model.mlpackage"']
)
def test_backend_platform_or_file_name_tell_it(tmp_path: Path, machine: Machine, config: str) -> None:
    assert configured(put(tmp_path, "affine", save_affine(tmp_path), config), machine).backend == "coreml"


def test_a_package_of_another_name(tmp_path: Path, machine: Machine) -> None:
    config = 'backend: "coreml" default_model_filename: "pitch.mlpackage"'
    folder = put(tmp_path, "affine", save_affine(tmp_path), config, "pitch.mlpackage")
    assert configured(folder, machine).path.name == "pitch.mlpackage"
    with pytest.raises(InvalidArgumentError, match="could not determine backend"):
        configured(put(tmp_path, "other", save_affine(tmp_path, name="other"), filename="pitch.mlpackage"), machine)


def test_a_compiled_model_is_as_good_as_its_package(tmp_path: Path, machine: Machine) -> None:
    path = compile_package(save_flexible(tmp_path, ct.RangeDim(1, 512)), tmp_path / "compiled")
    config = configured(put(tmp_path, "plain", path, filename="model.mlmodelc"), machine)
    assert (config.backend, config.path.name, config.batching.max_batch_size) == ("coreml", "model.mlmodelc", 4)
    assert {name: (each.datatype.value, each.dims) for name, each in config.inputs.items()} == {"x": ("FP32", (3,))}


def test_another_kind_of_compiled_model_is_explained(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "coremldata.bin").touch()
    with pytest.raises(UnsupportedError, match=r"model\.mlmodelc.*only Core ML itself"):
        configured(put(tmp_path, "affine", tmp_path / "compiled", filename="model.mlmodelc"), machine)


@pytest.mark.parametrize(("upper", "expected"), [(2, 2), (512, 4)])
def test_a_range_of_rows_gives_max_batch_size(tmp_path: Path, machine: Machine, upper: int, expected: int) -> None:
    path = save_flexible(tmp_path, ct.RangeDim(1, upper, default=1))
    config = configured(put(tmp_path, "plain", path), machine)
    assert config.batching.max_batch_size == expected
    assert config.batching.is_dynamic
    assert config.inputs["x"].dims == (3,)
    assert configured(put(tmp_path, "given", path, "max_batch_size: 2"), machine).batching.max_batch_size == 2
    with pytest.raises(InvalidArgumentError, match=f"max_batch_size of model 'large' is 513.*{upper} rows at most"):
        configured(put(tmp_path, "large", path, "max_batch_size: 513"), machine)


def test_fixed_and_enumerated_rows_are_no_batch(tmp_path: Path, machine: Machine) -> None:
    fixed = put(tmp_path, "fixed", save_classifier(tmp_path))
    assert configured(fixed, machine).batching.max_batch_size == 0
    assert configured(fixed, machine).inputs["x"].dims == (1, 3)
    (fixed / "config.pbtxt").write_text("max_batch_size: 8")
    with pytest.raises(InvalidArgumentError, match="its file takes no batches; set max_batch_size to 0"):
        configured(fixed, machine)
    other = tmp_path / "other"
    other.mkdir()
    path = save_flexible(other, ct.EnumeratedShapes([[1, 3], [4, 3]]))
    config = configured(put(tmp_path, "enumerated", path), machine)
    assert (config.batching.max_batch_size, config.inputs["x"].dims) == (0, (-1, 3))


def test_a_config_that_contradicts_the_package(tmp_path: Path, machine: Machine) -> None:
    config = "input { name: 'x' data_type: TYPE_FP32 dims: [ 2, 4 ] }"
    with pytest.raises(InvalidArgumentError, match=r"the model expects.*\[2,3\].*\[2,4\]"):
        configured(put(tmp_path, "affine", save_affine(tmp_path), config), machine)


def test_an_onnx_model_goes_to_ane_where_the_config_names_it(tmp_path: Path, machine: Machine) -> None:
    assert configured(put(tmp_path, "plain", affine(), filename="model.onnx"), machine).units == (Unit.CPU,)
    config = configured(put(tmp_path, "both", affine(), ON_BOTH, "model.onnx"), machine)
    assert (config.backend, config.units) == ("onnxruntime", (Unit.CPU, Unit.ANE))
    without = Machine({"onnxruntime": machine.runtimes["onnxruntime"]}, UNITS, 2)
    with pytest.raises(
        UnsupportedError, match=r"served by coreai or coreml, which is not .* or pip install 'triune\[coreml\]'$"
    ):
        configured(put(tmp_path, "ane", affine(), ON_ANE, "model.onnx"), without)


class Asked:
    """A repository that is open, to be asked."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.server = Server(repository)

    async def __call__(self, model: str, x: Sequence[Sequence[float]], **parameters: Parameter) -> object:
        request = InferenceRequest(model, {"x": np.array(x, np.float32)}, parameters=parameters)
        return (await self.server.infer(request)).outputs["y"].tolist()


async def test_models_are_served_on_ane(tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    models = tmp_path / "models"
    put(models, "package", save_affine(tmp_path, precision="FLOAT16"), ON_ANE)
    put(models, "plain", save_affine(tmp_path, name="plain"))
    put(models, "onnx", affine(), ON_BOTH, "model.onnx")
    put(
        models,
        "hosted",
        affine(),
        ON_ANE + 'parameters { key: "own_process" value { string_value: "1" } }',
        "model.onnx",
    )
    put(models, "broken", save_affine(tmp_path, name="broken"))
    next((models / "broken").rglob("model.mlmodel")).write_bytes(b"nonsense")
    repository = Repository(RepositorySettings([models], ControlMode.EXPLICIT, ["*"]), machine, MonotonicClock())
    await repository.open()
    try:
        ask = Asked(repository)
        reasons = {entry.name: entry.reason for entry in repository.index() if entry.reason}
        assert list(reasons) == ["broken"]
        # Sums and products of inputs alone are in fp32, which is all that the model computes.
        assert re.search(r"and ane \(emulated, coreml, fp32, \d+ threads?, error", caplog.text)
        assert "not a Core ML specification" in reasons["broken"]
        x = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
        for model in ("package", "plain"):
            assert await ask(model, x) == [[3.0, 5.0, 7.0], [9.0, 11.0, 13.0]]
        for parameters in ({}, {UNIT_PARAMETER: "cpu"}, {UNIT_PARAMETER: "ane"}):
            assert await ask("onnx", [[1, 2, 3, 4]], **parameters) == [[2, 4, 6, 8]]
        assert await ask("hosted", [[1, 2, 3, 4]]) == [[2, 4, 6, 8]]
        assert ask.server.model("onnx").statistics.unit_inferences == {Unit.CPU: 2, Unit.ANE: 1}
        with pytest.raises(InvalidArgumentError, match="served on ane, cpu"):
            await ask("onnx", [[1, 2, 3, 4]], **{UNIT_PARAMETER: "gpu"})
        assert ask.server.model("package").emulated == ask.server.model("onnx").emulated == {Unit.ANE}
        assert ask.server.model("plain").emulated == set()
        # The error of fp16 against cpu was measured when they were loaded.
        verdicts = ask.server.model("package").statistics.verdicts
        assert 0 < verdicts[Unit.ANE].largest < 0.01
        await repository.load("plain")
        assert await ask("plain", x) == [[3.0, 5.0, 7.0], [9.0, 11.0, 13.0]]
        # A package is a folder; its files can be sent one by one.
        source = save_affine(tmp_path, factor=3.0, name="sent")
        files = {
            f"1/model.mlpackage/{each.relative_to(source).as_posix()}": each.read_bytes()
            for each in source.rglob("*")
            if each.is_file()
        }
        await repository.load("plain", config_json="{}", files=files)
        assert await ask("plain", x) == [[4.0, 7.0, 10.0], [13.0, 16.0, 19.0]]
    finally:
        await repository.close()


def test_int32_models_of_two_inputs_convert(tmp_path: Path, machine: Machine) -> None:
    config = configured(put(tmp_path, "simple", add_sub(), ON_ANE, "model.onnx"), machine)
    assert config.units == (Unit.ANE,)
