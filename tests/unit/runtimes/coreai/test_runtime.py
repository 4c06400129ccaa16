"""The Core AI runtime: assets and ONNX models, on the CPU and on the emulated Neural Engine."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.apple_interpreter import described
from support.lowered import FLOAT, model_of
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreai.lowering import LowerOptions, Source, lower, lower_functions
from triune.runtimes.compiled_cache import CompiledCache
from triune.runtimes.coreai import CoreAi
from triune.runtimes.onnxruntime import OnnxRuntime

UNITS = (
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.ANE, Presence.EMULATED, reason="it is emulated"),
)

pytestmark = pytest.mark.usefixtures("converts_here")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(autouse=True)
def describes_here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A process of its own takes as long to import Apple's library as these tests take; a broken asset needs it."""
    if request.function is not test_a_broken_asset_ends_no_process_of_ours:
        monkeypatch.setattr("triune.runtimes.coreai.runtime.describe", described)


@pytest.fixture
def runtime(tmp_path: Path) -> CoreAi:
    return CoreAi(UNITS, {Unit.CPU: OnnxRuntime()}, CompiledCache(tmp_path / "cache"))


def _double() -> Any:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return model_of(nodes, [("x", FLOAT, ["rows", 4])], [("y", FLOAT, ["rows", 4])])


def _run(runtime: CoreAi, path: Path, inputs: Any, unit: Unit = Unit.CPU, **options: str) -> dict[str, Any]:
    named = {f"coreai.{name}": value for name, value in options.items()}
    executable = runtime.load(path, unit=unit, num_threads=1, options=named)
    try:
        assert executable.unit is unit
        return executable.run(inputs, [spec.name for spec in executable.signature.outputs])
    finally:
        executable.close()


def test_units_are_those_of_what_is_raised_and_the_emulated_one(runtime: CoreAi) -> None:
    assert runtime.units() == (Unit.CPU, Unit.ANE)


def test_where_the_system_has_core_ai_its_units_come_first(tmp_path: Path) -> None:
    present = (UnitStatus(Unit.ANE, Presence.PRESENT, "an engine"),)
    runtime = CoreAi(present, {Unit.CPU: OnnxRuntime()}, CompiledCache(tmp_path), has_core_ai=True)
    assert runtime.units() == (Unit.ANE, Unit.GPU, Unit.CPU)


@pytest.mark.parametrize(
    ("unit", "executor"), [(Unit.CPU, "onnxruntime"), (Unit.ANE, "onnxruntime"), (Unit.ANE, "interpreter")]
)
def test_an_asset_computes(unit: Unit, executor: str, runtime: CoreAi, tmp_path: Path) -> None:
    path = lower(_double(), tmp_path / "m.aimodel").path
    np.testing.assert_array_equal(_run(runtime, path, {"x": X}, unit, executor=executor)["y"], 2 * X)


class _Narrowing(OnnxRuntime):
    """As OpenVINO on `amx`, as far as what it says of itself goes."""

    def load(self, path: Path, **named: Any) -> Any:
        executable = super().load(path, **named | {"unit": Unit.CPU})
        executable.precision = "bf16"
        return executable


@pytest.mark.parametrize(
    ("unit", "executor", "told"),
    [
        (Unit.CPU, "onnxruntime", "fp16"),
        (Unit.AMX, "onnxruntime", "bf16"),
        (Unit.ANE, "onnxruntime", "fp16"),
        (Unit.ANE, "interpreter", "fp16"),
    ],
)
def test_the_precision_is_that_of_what_is_computed(unit: Unit, executor: str, told: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "half"], ["square"]),
        helper.make_node("Cast", ["square"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, [("x", FLOAT, [2, 4])], [("y", FLOAT, [2, 4])])
    path = lower(model, tmp_path / "m.aimodel").path
    runtime = CoreAi(UNITS, {Unit.CPU: OnnxRuntime(), Unit.AMX: _Narrowing()}, CompiledCache(tmp_path / "cache"))
    executable = runtime.load(path, unit=unit, num_threads=1, options={"coreai.executor": executor})
    try:
        assert {spec.datatype for spec in executable.signature.inputs} == {DataType.FP32}
        assert executable.precision == told
        np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], X * X)
    finally:
        executable.close()


def test_an_onnx_model_is_converted_once(runtime: CoreAi, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_double(), path)
    for _ in range(2):
        np.testing.assert_array_equal(_run(runtime, path, {"x": X}, Unit.ANE)["y"], 2 * X)
    assert len(list((tmp_path / "cache").glob("*.aimodel"))) == 1


def test_datatypes_of_the_source_stay(runtime: CoreAi, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    values = [(name, TensorProto.INT64, ["rows"]) for name in "xy"]
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, values[:1], values[1:]), path)
    assert _run(runtime, path, {"x": np.array([1, 2])}, Unit.ANE)["y"].dtype == np.int64
    with pytest.raises(InvalidArgumentError, match="beyond INT32"):
        _run(runtime, path, {"x": np.array([2**40])}, Unit.ANE)


def test_functions_are_chosen_by_name(runtime: CoreAi, tmp_path: Path) -> None:
    sources = {"one": Source(_double(), LowerOptions()), "two": Source(_double(), LowerOptions())}
    path = lower_functions(sources, tmp_path / "m.aimodel").path
    np.testing.assert_array_equal(_run(runtime, path, {"x": X}, function="two")["y"], 2 * X)
    with pytest.raises(InvalidArgumentError, match="'one', 'two'"):
        runtime.inspect(path)


def test_states_are_inputs_and_outputs_where_that_is_asked_for(runtime: CoreAi, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["past", "x"], ["next"]), helper.make_node("Neg", ["next"], ["y"])]
    values = [(name, FLOAT, [1, 4]) for name in ("past", "x", "next", "y")]
    path = lower(
        model_of(nodes, values[:2], values[2:]), tmp_path / "m.aimodel", LowerOptions(states={"past": "next"})
    ).path
    with pytest.raises(UnsupportedError, match=r"'past'.*'coreai\.states'"):
        runtime.inspect(path)
    first = _run(runtime, path, {"x": X[:1]}, states="explicit")
    np.testing.assert_array_equal(first["past/new"], X[:1])
    second = _run(runtime, path, {"x": X[:1], "past": first["past/new"]}, states="explicit")
    np.testing.assert_array_equal(second["y"], -2 * X[:1])


def test_wrong_options_are_refused(runtime: CoreAi, tmp_path: Path) -> None:
    path = lower(_double(), tmp_path / "m.aimodel").path
    for option, told in (
        ({"coreai.speed": "fast"}, "knows no parameter"),
        ({"coreai.executor": "magic"}, "ONNXRUNTIME"),
        ({"coreai.shapes": "x=1,4|2,4"}, "give a range"),
        ({"coreai.states": "explicit"}, "has none: leave it out"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            runtime.inspect(path, option)


def test_a_broken_asset_ends_no_process_of_ours(runtime: CoreAi, tmp_path: Path) -> None:
    path = lower(_double(), tmp_path / "m.aimodel").path
    program = path / "main.mlirb"
    program.write_bytes(program.read_bytes()[:-40])
    with pytest.raises(InvalidArgumentError, match=r"main\.mlirb"):
        runtime.inspect(path)


def test_kept_int8_weights_are_multiplied_in_fp32(tmp_path: Path, runtime: CoreAi) -> None:
    """As Core AI does. By default ONNX Runtime rounds the other operand to 8 bits, which is off by 0.6 %."""
    rng = np.random.default_rng(0)
    levels, scale = rng.integers(-127, 128, (40, 64)).astype(np.int8), rng.uniform(0.01, 0.03, 64).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["levels", "scale"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [3, 40])], [("y", FLOAT, [3, 64])], opset=21, levels=levels, scale=scale)
    lower(model, tmp_path / "int8.aimodel", LowerOptions(packs_weights=True))
    x = rng.standard_normal((3, 40)).astype(np.float32)
    right = x @ (levels.astype(np.float32) * scale)
    for unit in (Unit.CPU, Unit.ANE):
        found = _run(runtime, tmp_path / "int8.aimodel", {"x": x}, unit)["y"]
        np.testing.assert_allclose(found, right, atol=1e-5 * float(np.abs(right).max()))
