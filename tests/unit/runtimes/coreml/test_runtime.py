"""The Core ML runtime: packages and ONNX models on the emulated Neural Engine, and the way to Apple's Core ML."""

import contextlib
import json
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from contract.runtimes.models import add_sub, dense, identity, model, node, tensor
from support.compiled_models import compile_package
from support.mil_models import (
    ct,
    program,
    save,
    save_accumulator,
    save_affine,
    save_classifier,
    save_flexible,
    save_functions,
    save_image_model,
    save_two_kinds,
)
from support.mil_models import tensor as half_tensor
from support.mil_programs import mb
from triune.core.datatypes import DataType
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError, UnsupportedError
from triune.core.runtime import Executable
from triune.core.tensors import Signature, TensorSpec
from triune.core.units import Presence, Unit, UnitStatus
from triune.coreml.lowering import LowerOptions, lower
from triune.hosting import HostedExecutable
from triune.runtimes.compiled_cache import CompiledCache, package_digest
from triune.runtimes.coreml import CoreMl
from triune.runtimes.coreml.conversion import convert_here
from triune.runtimes.coreml.options import FUNCTION, STATES

ELSEWHERE = (
    UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU"),
    UnitStatus(Unit.AMX, Presence.ABSENT, reason="no tiles here"),
    UnitStatus(Unit.GPU, Presence.ABSENT, reason="no GPU here"),
    UnitStatus(Unit.ANE, Presence.EMULATED, reason="it is emulated"),
)
APPLE = tuple(UnitStatus(unit, Presence.PRESENT, f"a Mac's {unit.value}") for unit in Unit)
EXPLICIT = {STATES: "explicit"}
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def runtime(tmp_path: Path) -> CoreMl:
    """Elsewhere, converting in this process, which is quicker to start."""
    return CoreMl(ELSEWHERE, CompiledCache(tmp_path / "cache"), convert=convert_here)


def spec(name: str, datatype: DataType, *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape, (None,) * len(shape))


def save_onnx(folder: Path, built: ModelProto, name: str = "model") -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(built.SerializeToString())
    return path


def entries(runtime: CoreMl) -> list[str]:
    """What the cache keeps."""
    folder = runtime._cache.folder
    return sorted(each.name for each in folder.iterdir() if each.name != ".lock") if folder.exists() else []


@pytest.mark.parametrize(("precision", "words"), [("FLOAT32", "fp32"), ("FLOAT16", "fp16")])
@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize("unit", [Unit.ANE, Unit.CPU])
def test_a_package_runs_on_the_emulated_unit_and_on_the_cpu(
    runtime: CoreMl, tmp_path: Path, unit: Unit, executor: str, precision: str, words: str
) -> None:
    path = save_affine(tmp_path, precision=precision)
    executable = runtime.load(path, unit=unit, num_threads=1, options={"coreml.executor": executor})
    assert (executable.unit, executable.precision) == (unit, "fp32" if unit is Unit.CPU else words)
    assert executable.signature == runtime.inspect(path)
    found = executable.run({"x": X}, ["y"])
    np.testing.assert_allclose(found["y"], 2 * X + 1, rtol=1e-3)
    first = found["y"].copy()
    executable.run({"x": X + 5}, ["y"])
    np.testing.assert_array_equal(found["y"], first)
    executable.close()
    assert entries(runtime) == []


def test_fp16_is_computed_in_fp16(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_affine(tmp_path, precision="FLOAT16")
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    found = executable.run({"x": np.full((2, 3), 1025.3, np.float32)}, ["y"])["y"]
    # 1025.3 is 1025 in fp16, and 2051 lies between two of its values.
    assert set(found.ravel().tolist()) <= {2050.0, 2052.0}
    executable = runtime.load(path, unit=Unit.CPU, num_threads=1, options={})
    found = executable.run({"x": np.full((2, 3), 1025.3, np.float32)}, ["y"])["y"]
    np.testing.assert_allclose(found, 2051.6, rtol=1e-6)


@pytest.mark.parametrize("unit", [Unit.ANE, Unit.CPU])
def test_an_interface_in_fp16_stays_so(runtime: CoreMl, tmp_path: Path, unit: Unit) -> None:
    @program(half_tensor(2, 3, dtype="fp16"))
    def made(x: Any) -> Any:
        return mb.mul(x=x, y=np.float16(3), name="y")

    executable = runtime.load(save(tmp_path, made, precision="FLOAT16"), unit=unit, num_threads=1, options={})
    assert executable.signature.inputs[0].datatype is executable.signature.outputs[0].datatype is DataType.FP16
    found = executable.run({"x": X.astype(np.float16)}, ["y"])["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, 3 * X)
    assert np.isinf(executable.run({"x": np.full((2, 3), 60000, np.float16)}, ["y"])["y"]).all()


def test_a_range_of_rows_is_a_batch(runtime: CoreMl, tmp_path: Path) -> None:
    for index, (dimension, shape, limit) in enumerate(
        (
            (ct.RangeDim(1, 8, default=1), (-1, 3), 8),
            (ct.RangeDim(2, 8, default=2), (-1, 3), 0),
            (ct.EnumeratedShapes([[1, 3], [4, 3]]), (-1, 3), 0),
        )
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = save_flexible(folder, dimension)
        signature = runtime.inspect(path)
        assert signature.inputs == (spec("x", DataType.FP32, *shape),)
        assert signature.outputs[0].shape == (-1, 3)
        assert signature.max_batch_size == limit
        executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
        assert executable.run({"x": np.ones((4, 3), np.float32)}, ["y"])["y"].shape == (4, 3)
        with pytest.raises(InvalidArgumentError, match="'x' has shape"):
            executable.run({"x": np.ones((9, 3), np.float32)}, ["y"])


def test_one_fixed_row_is_no_batch(runtime: CoreMl, tmp_path: Path) -> None:
    signature = runtime.inspect(save_classifier(tmp_path))
    assert signature.inputs[0].shape == (1, 3)
    assert signature.max_batch_size == 0


def test_a_classifier_gives_its_label_and_probabilities(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_classifier(tmp_path)
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert executable.signature.outputs == (
        spec("classLabel", DataType.BYTES, 1),
        spec("classLabel_probs", DataType.FP64, 3),
    )
    found = executable.run({"x": np.array([[1, 3, 2]], np.float32)}, ["classLabel_probs", "classLabel"])
    assert list(found) == ["classLabel_probs", "classLabel"]
    assert found["classLabel"].tolist() == [b"bee"]
    np.testing.assert_allclose(found["classLabel_probs"], [0.09, 0.665, 0.245], atol=1e-3)


@pytest.mark.parametrize(("layout", "shape"), [("RGB", (4, 5, 3)), ("GRAYSCALE", (4, 5))])
def test_images_are_pixels(runtime: CoreMl, tmp_path: Path, layout: str, shape: tuple[int, ...]) -> None:
    path = save_image_model(tmp_path, layout)
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    expected = Signature((spec("x", DataType.UINT8, *shape),), (spec("y", DataType.UINT8, *shape),), 0)
    assert executable.signature == expected
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(executable.run({"x": pixels}, ["y"])["y"], 255 - pixels)


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize(("options", "factor"), [({}, 2), ({FUNCTION: "twice"}, 2), ({FUNCTION: "thrice"}, 3)])
def test_any_function_is_served(
    runtime: CoreMl, tmp_path: Path, options: dict[str, str], factor: int, executor: str
) -> None:
    options = {**options, "coreml.executor": executor}
    executable = runtime.load(save_functions(tmp_path), unit=Unit.ANE, num_threads=1, options=options)
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], factor * X + 1)


def test_a_function_has_its_own_signature_and_precision(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_two_kinds(tmp_path)
    for name, kind, shape, precision in (("single", "FP32", (2, 3), "fp32"), ("half", "FP16", (1, 4), "fp16")):
        options = {FUNCTION: name}
        signature = runtime.inspect(path, options)
        assert [str(each) for each in (*signature.inputs, *signature.outputs)] == [
            f"x: {kind}[{shape[0]},{shape[1]}]",
            f"y: {kind}[{shape[0]},{shape[1]}]",
        ]
        executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options=options)
        assert (executable.signature, executable.precision) == (signature, precision)
        assert executable.run({"x": np.ones(shape, DataType(kind).dtype)}, ["y"])["y"].shape == shape


def test_a_function_that_is_not_there(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_functions(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"no function 'main': parameter 'coreml.function' may name 'twice'"):
        runtime.inspect(path, {FUNCTION: "main"})
    with pytest.raises(InvalidArgumentError, match="no function ''"):
        runtime.inspect(path, {FUNCTION: ""})
    with pytest.raises(InvalidArgumentError, match="'coreml.function' is for Core ML packages.*an ONNX model: leave"):
        runtime.inspect(save_onnx(tmp_path, identity()), {FUNCTION: "main"})


def test_states_need_a_word(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_accumulator(tmp_path)
    with pytest.raises(
        UnsupportedError, match=r"keeps the states 'total' between calls.*'coreml.states' to 'explicit'"
    ):
        runtime.inspect(path)
    with pytest.raises(InvalidArgumentError, match=r"'coreml.states' is 'kept'; write one of EXPLICIT"):
        runtime.inspect(path, {STATES: "kept"})
    with pytest.raises(
        InvalidArgumentError, match="'coreml.states' is given, but.*'main'.*has no states: leave it out"
    ):
        runtime.inspect(save_affine(tmp_path, name="affine"), EXPLICIT)


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize("unit", [Unit.ANE, Unit.CPU])
def test_explicit_states_are_inputs_and_outputs(runtime: CoreMl, tmp_path: Path, unit: Unit, executor: str) -> None:
    options = {**EXPLICIT, "coreml.executor": executor}
    check_accumulator(runtime.load(save_accumulator(tmp_path), unit=unit, num_threads=1, options=options))


def check_accumulator(executable: Executable) -> None:
    total = TensorSpec("total", DataType.FP16, (1, 2), (None, None), is_optional=True, is_state=True)
    assert executable.signature == Signature(
        (spec("x", DataType.FP16, 1, 2), total),
        (spec("y", DataType.FP16, 1, 2), spec("total/new", DataType.FP16, 1, 2)),
        0,
    )
    x = np.array([[1, 2]], np.float16)
    # Nothing is kept: what is not given is zeros, each time.
    for _ in range(2):
        found = executable.run({"x": x}, ["total/new", "y"])
        assert list(found) == ["total/new", "y"]
        assert {array.dtype for array in found.values()} == {np.dtype(np.float16)}
        assert found["total/new"].tolist() == found["y"].tolist() == [[1, 2]]
    state = found["total/new"]
    after = executable.run({"x": x, "total": state}, ["total/new"])["total/new"]
    assert (state.tolist(), after.tolist()) == ([[1, 2]], [[2, 4]])
    with pytest.raises(InvalidArgumentError, match=r"'state total' has shape \[1, 3\]; it must have \[1, 2\]"):
        executable.run({"x": x, "total": np.zeros((1, 3), np.float16)}, ["y"])


def test_wrong_inputs_are_refused(runtime: CoreMl, tmp_path: Path) -> None:
    executable = runtime.load(save_affine(tmp_path), unit=Unit.ANE, num_threads=1, options={})
    with pytest.raises(InvalidArgumentError, match="input 'x' is missing"):
        executable.run({}, ["y"])
    with pytest.raises(InvalidArgumentError, match="no input 'z'; it has x"):
        executable.run({"x": X, "z": X}, ["y"])
    with pytest.raises(InvalidArgumentError, match=r"'x' has shape \[3, 2\]"):
        executable.run({"x": X.T}, ["y"])


@pytest.mark.parametrize("unit", [Unit.ANE, Unit.CPU])
def test_what_core_ml_compiled_runs_elsewhere(runtime: CoreMl, tmp_path: Path, unit: Unit) -> None:
    path = save_affine(tmp_path, precision="FLOAT16")
    compiled = compile_package(path, tmp_path / "model.mlmodelc")
    assert runtime.inspect(compiled) == runtime.inspect(path)
    executable = runtime.load(compiled, unit=unit, num_threads=1, options={})
    assert executable.precision == ("fp32" if unit is Unit.CPU else "fp16")
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 2 * X + 1)


def test_functions_and_states_of_what_core_ml_compiled(runtime: CoreMl, tmp_path: Path) -> None:
    path = compile_package(save_functions(tmp_path), tmp_path / "functions.mlmodelc")
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={FUNCTION: "thrice"})
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 3 * X + 1)
    path = compile_package(save_accumulator(tmp_path), tmp_path / "accumulator.mlmodelc")
    check_accumulator(runtime.load(path, unit=Unit.ANE, num_threads=1, options=EXPLICIT))


def test_what_is_no_package_is_refused(runtime: CoreMl, tmp_path: Path) -> None:
    empty = tmp_path / "model.mlpackage"
    for attempt in (runtime.inspect, lambda path: runtime.load(path, unit=Unit.ANE, num_threads=1, options={})):
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            attempt(empty)
    empty.mkdir()
    with pytest.raises(InvalidArgumentError, match="not a Core ML package"):
        runtime.inspect(empty)
    compiled = tmp_path / "model.mlmodelc"
    compiled.mkdir()
    (compiled / "coremldata.bin").touch()
    with pytest.raises(UnsupportedError, match="give the .mlpackage"):
        runtime.inspect(compiled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coreml.executor": "gpu"}, "'coreml.executor' is 'gpu'"),
        ({"coreml.precision": "int8"}, "'coreml.precision' is 'int8'"),
        ({"coreml.target": "iOS3"}, "'iOS3' is not known"),
        ({"coreml.shapes": "x=0,3"}, "'0' of --shape"),
        ({"coreml.max_batch_size": "-1"}, "'coreml.max_batch_size' is '-1'"),
        ({"coreml.layout": "nhwc"}, "'coreml.layout' is 'nhwc'; write one of ANE, SOURCE"),
        ({"coreml.conversion_seconds": "0"}, "'coreml.conversion_seconds' is '0'.*at least 1"),
        ({"frobnicate": "1"}, "backend 'coreml' knows no parameter 'frobnicate'"),
    ],
)
def test_wrong_options_are_refused(runtime: CoreMl, tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = save_onnx(tmp_path, identity())
    with pytest.raises(InvalidArgumentError, match=message):
        runtime.load(path, unit=Unit.ANE, num_threads=1, options=options)


def test_units_that_are_not_here(tmp_path: Path) -> None:
    path = save_affine(tmp_path)
    elsewhere = CoreMl(ELSEWHERE)
    assert list(elsewhere.units()) == [Unit.ANE, Unit.CPU]
    with pytest.raises(UnsupportedError, match="does not run on unit 'gpu' here: no GPU here"):
        elsewhere.load(path, unit=Unit.GPU, num_threads=1, options={})
    assert list(CoreMl(ELSEWHERE[:3]).units()) == [Unit.CPU]
    assert list(CoreMl(APPLE).units()) == [Unit.ANE, Unit.GPU, Unit.AMX, Unit.CPU]


def test_an_onnx_model_keeps_its_own_interface(runtime: CoreMl, tmp_path: Path) -> None:
    """Names that Core ML does not take, INT64, a scalar, BOOL: as the ONNX file has them."""
    built = model(
        [
            node("Mul", "a.b/c rate", "scaled"),
            node("Cast", "n:0", "wide", to=1),
            node("Add", "scaled wide", "out.1"),
            node("ReduceSum", "scaled", "total", keepdims=0),
            node("ArgMax", "scaled", "best", axis=1, keepdims=0),
            node("Greater", "scaled wide", "is_more"),
        ],
        [tensor("a.b/c", (2, 3)), tensor("rate", ()), tensor("n:0", (2, 3), DataType.INT64)],
        [
            tensor("out.1", (2, 3)),
            tensor("total", ()),
            tensor("best", (2,), DataType.INT64),
            tensor("is_more", (2, 3), DataType.BOOL),
        ],
    )
    path = save_onnx(tmp_path, built)
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert executable.precision == "fp16"
    assert [str(each) for each in executable.signature.inputs] == [
        "a.b/c: FP32[2,3]",
        "rate: FP32[]",
        "n:0: INT64[2,3]",
    ]
    inputs = {"a.b/c": X, "rate": np.float32(2).reshape(()), "n:0": np.full((2, 3), 4)}
    found = executable.run(inputs, ["is_more", "best", "total", "out.1"])
    assert [(name, array.dtype, array.shape) for name, array in found.items()] == [
        ("is_more", np.dtype(bool), (2, 3)),
        ("best", np.dtype(np.int64), (2,)),
        ("total", np.dtype(np.float32), ()),
        ("out.1", np.dtype(np.float32), (2, 3)),
    ]
    np.testing.assert_array_equal(found["out.1"], 2 * X + 4)
    np.testing.assert_array_equal(found["is_more"], 2 * X > 4)
    assert found["best"].tolist() == [2, 2]
    assert found["total"] == 30
    with pytest.raises(InvalidArgumentError, match="int32 cannot hold"):
        executable.run({**inputs, "n:0": np.full((2, 3), 2**40)}, ["out.1"])


def test_a_converted_package_that_is_served_as_such_has_its_own_names(runtime: CoreMl, tmp_path: Path) -> None:
    """Even where one of them is the source's name of another tensor; and no tensor of rank 0."""
    built = model(
        [node("Sub", "a.b a_b", "c.d"), node("ReduceSum", "c.d", "total", keepdims=0)],
        [tensor("a.b", (2, 3)), tensor("a_b", (2, 3))],
        [tensor("c.d", (2, 3)), tensor("total", ())],
    )
    path = tmp_path / "made.mlpackage"
    inputs = lower(built, path).inputs
    assert set(inputs.values()) == {"a_b", "a_b_1"}
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    found = executable.run({inputs["a.b"]: 3 * X, inputs["a_b"]: X}, ["c_d", "total"])
    np.testing.assert_array_equal(found["c_d"], 2 * X)
    assert found["total"].tolist() == [30]
    assert [each.shape for each in executable.signature.outputs] == [(2, 3), (1,)]


def test_an_onnx_model_is_converted_once(tmp_path: Path) -> None:
    paths: list[Path] = []

    def counting(path: Path, target: Path, options: LowerOptions, seconds: float) -> None:
        paths.append(target)
        convert_here(path, target, options, seconds)

    runtime = CoreMl(ELSEWHERE, CompiledCache(tmp_path / "cache"), convert=counting)
    path = save_onnx(tmp_path, identity(shape=(2, 3)))
    for _ in range(3):
        assert runtime.load(path, unit=Unit.ANE, num_threads=1, options={}).run({"x": X}, ["y"])["y"].shape == (2, 3)
    assert len(paths) == len(entries(runtime)) == 1
    runtime.load(path, unit=Unit.ANE, num_threads=1, options={"coreml.precision": "fp32"})
    assert len(paths) == 2
    other = save_onnx(tmp_path, identity(shape=(3, 3)), "other")
    runtime.load(other, unit=Unit.ANE, num_threads=1, options={})
    assert len(paths) == 3
    # The content counts, not the name.
    other.rename(tmp_path / "renamed.onnx")
    runtime.load(tmp_path / "renamed.onnx", unit=Unit.ANE, num_threads=1, options={})
    assert len(paths) == 3


def test_weights_beside_the_model_count(runtime: CoreMl, tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    built = dense(8)
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    built.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save_model(built, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.ones((1, 8), np.float32)
    for factor in (1, 3):
        weights = np.full((8, 8), factor / 8, np.float32)
        (tmp_path / "weights.bin").write_bytes(weights.tobytes())
        found = runtime.load(path, unit=Unit.ANE, num_threads=1, options={}).run({"x": x}, ["y"])["y"]
        np.testing.assert_allclose(found, factor * x, rtol=1e-3)
    assert len(entries(runtime)) == 2


def test_free_dimensions_need_limits(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_onnx(tmp_path, add_sub(DataType.FP32))
    with pytest.raises(UnsupportedError, match=r"dimension 0 of input 'INPUT0'.*'coreml.shapes'.*'INPUT0=1,1..512'"):
        runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={"coreml.max_batch_size": "4"})
    for rows in (1, 4):
        ones = np.ones((rows, 16), np.float32)
        assert executable.run({"INPUT0": ones, "INPUT1": ones}, ["OUTPUT0"])["OUTPUT0"].tolist() == (2 * ones).tolist()
    nine = np.ones((9, 16), np.float32)
    with pytest.raises(InvalidArgumentError, match=r"has shape \[9, 16\]"):
        executable.run({"INPUT0": nine, "INPUT1": nine}, ["OUTPUT0"])
    given = {"coreml.shapes": "INPUT0=1..2,16;INPUT1=1..2,16"}
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options=given)
    ones = np.ones((2, 16), np.float32)
    assert executable.run({"INPUT0": ones, "INPUT1": ones}, ["OUTPUT1"])["OUTPUT1"].tolist() == (0 * ones).tolist()


def test_a_conversion_does_not_fill_the_log(runtime: CoreMl, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    built = model([node("Neg", "x", "h"), node("Add", "h h", "y")], [tensor("x", (2, 3))], [tensor("y", (2, 3))])
    runtime.load(save_onnx(tmp_path, built), unit=Unit.ANE, num_threads=1, options={})
    assert len(entries(runtime)) == 1
    assert [record.getMessage() for record in caplog.records if record.name.startswith("coremltools")] == []


def test_what_cannot_be_converted_leaves_nothing(runtime: CoreMl, tmp_path: Path) -> None:
    path = save_onnx(tmp_path, identity(DataType.BYTES, (3,)))
    with pytest.raises(UnsupportedError, match="'x' is STRING"):
        runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert entries(runtime) == []


def test_loads_at_the_same_time_share_one_conversion(tmp_path: Path) -> None:
    num_calls = 0

    def counting(path: Path, target: Path, options: LowerOptions, seconds: float) -> None:
        nonlocal num_calls
        num_calls += 1
        convert_here(path, target, options, seconds)

    runtime = CoreMl(ELSEWHERE, CompiledCache(tmp_path / "cache"), convert=counting)
    path = save_onnx(tmp_path, identity(shape=(2, 3)))
    barrier = threading.Barrier(4)

    def work(_: int) -> list[list[float]]:
        barrier.wait()
        executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={})
        return executable.run({"x": X}, ["y"])["y"].tolist()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [X.tolist()] * 4
    assert num_calls == 1


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    runtime = CoreMl(ELSEWHERE, CompiledCache(tmp_path / "file" / "cache"))
    with pytest.raises(UnavailableError, match="TRIUNE_CACHE"):
        runtime.load(save_onnx(tmp_path, identity(shape=(2, 3))), unit=Unit.ANE, num_threads=1, options={})


@pytest.fixture
def mac(tmp_path: Path) -> CoreMl:
    """A Mac's units, with Triune's stand-in for Core ML in the worker processes."""
    return CoreMl(APPLE, CompiledCache(tmp_path / "cache"), preparation="triune.coreml.anywhere", convert=convert_here)


@pytest.mark.parametrize("unit", [Unit.ANE, Unit.GPU, Unit.AMX])
def test_core_ml_runs_each_unit_in_a_process_of_its_own(mac: CoreMl, tmp_path: Path, unit: Unit) -> None:
    path = save_affine(tmp_path, precision="FLOAT16")
    executable = mac.load(path, unit=unit, num_threads=1, options={})
    assert isinstance(executable, HostedExecutable)
    assert executable.pid not in (None, os.getpid())
    assert (executable.unit, executable.precision) == (unit, "fp16")
    assert executable.signature == mac.inspect(path)
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 2 * X + 1)
    assert entries(mac) == [f"{package_digest(path)}.mlmodelc"]
    with pytest.raises(InvalidArgumentError, match="'x' has shape"):
        executable.run({"x": X.T}, ["y"])
    compiled = mac.load(mac._cache.folder / entries(mac)[0], unit=unit, num_threads=1, options={})
    np.testing.assert_array_equal(compiled.run({"x": X}, ["y"])["y"], 2 * X + 1)
    compiled.close()
    assert len(entries(mac)) == 1
    killed = executable.pid or 0
    os.kill(killed, signal.SIGKILL)
    # This run finds that the process is gone, unless that was noticed and the process started again before.
    with contextlib.suppress(InternalError):
        executable.run({"x": X}, ["y"])
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 2 * X + 1)
    assert executable.pid != killed
    executable.close()


def test_core_mls_compute_plan_says_where_a_model_computes(mac: CoreMl, tmp_path: Path) -> None:
    """The plan is that of Triune's stand-in here, by Core ML's interface: a model so small stays on the CPU."""
    path = save_affine(tmp_path, precision="FLOAT16")
    executable = mac.load(path, unit=Unit.AMX, num_threads=1, options={})
    assert re.fullmatch(r"Core ML's compute plan: \d+ operations on cpu", executable.report)
    executable.close()
    emulated = CoreMl(ELSEWHERE, CompiledCache(tmp_path / "cache"), convert=convert_here)
    here = emulated.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert here.report == "ONNX Runtime in place of Core ML"
    here.close()


def test_core_ml_runs_onnx_classifiers_images_and_functions(mac: CoreMl, tmp_path: Path) -> None:
    def run(path: Path, *arrays: object) -> dict[str, object]:
        executable = mac.load(path, unit=Unit.ANE, num_threads=1, options={})
        names = [each.name for each in executable.signature.inputs]
        outputs = [each.name for each in executable.signature.outputs]
        try:
            return dict(executable.run(dict(zip(names, arrays, strict=True)), outputs))  # type: ignore[arg-type]
        finally:
            executable.close()

    wide = np.full((2, 16), 5)
    found = run(save_onnx(tmp_path, add_sub(DataType.INT64, (2, 16))), wide, wide)
    assert [array.tolist() for array in found.values()] == [(2 * wide).tolist(), (0 * wide).tolist()]  # type: ignore[attr-defined]
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}  # type: ignore[attr-defined]
    found = run(save_classifier(tmp_path), np.array([[1, 3, 2]], np.float32))
    assert found["classLabel"].tolist() == [b"bee"]  # type: ignore[attr-defined]
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    folder = tmp_path / "image"
    folder.mkdir()
    np.testing.assert_array_equal(run(save_image_model(folder), pixels)["y"], 255 - pixels)
    np.testing.assert_array_equal(run(save_functions(tmp_path), X)["y"], 2 * X + 1)
    thrice = mac.load(save_functions(tmp_path), unit=Unit.GPU, num_threads=1, options={FUNCTION: "thrice"})
    np.testing.assert_array_equal(thrice.run({"x": X}, ["y"])["y"], 3 * X + 1)
    thrice.close()


def test_core_ml_takes_states_and_gives_them(mac: CoreMl, tmp_path: Path) -> None:
    executable = mac.load(save_accumulator(tmp_path), unit=Unit.ANE, num_threads=1, options=EXPLICIT)
    check_accumulator(executable)
    executable.close()


def test_a_compiled_model_that_only_core_ml_reads(mac: CoreMl, tmp_path: Path) -> None:
    """Its metadata give the interface. What the stand-in reads lies beside them, as Core ML's own form would."""
    mac.load(save_affine(tmp_path), unit=Unit.ANE, num_threads=1, options={}).close()
    path = tmp_path / "model.mlmodelc"
    (mac._cache.folder / entries(mac)[0]).rename(path)
    features = {"type": "MultiArray", "dataType": "Float32", "isOptional": "0", "hasShapeFlexibility": "0"}
    schemas = {
        "inputSchema": [{**features, "name": "x", "shape": "[2, 3]"}],
        "outputSchema": [{**features, "name": "y", "shape": "[]"}],
    }
    (path / "metadata.json").write_text(json.dumps([{**schemas, "computePrecision": "Mixed (Float16, Int32)"}]))
    signature = mac.inspect(path)
    assert signature == Signature((spec("x", DataType.FP32, 2, 3),), (spec("y", DataType.FP32),), 0)
    executable = mac.load(path, unit=Unit.ANE, num_threads=1, options={})
    assert (executable.precision, executable.signature) == ("fp16", signature)
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 2 * X + 1)
    with pytest.raises(TriuneError):
        executable.run({"x": X.T}, ["y"])
    executable.close()
    # A function is one of a program's, which is looked at then.
    with pytest.raises(InvalidArgumentError, match="no function 'prefill'.*may name 'main'"):
        mac.inspect(path, {FUNCTION: "prefill"})
    executable = mac.load(path, unit=Unit.ANE, num_threads=1, options={FUNCTION: "main"})
    assert (executable.precision, executable.signature) == ("fp32", mac.inspect(path, {FUNCTION: "main"}))
    np.testing.assert_array_equal(executable.run({"x": X}, ["y"])["y"], 2 * X + 1)
    executable.close()


def test_without_core_ml_the_worker_process_says_so(tmp_path: Path) -> None:
    runtime = CoreMl(APPLE, CompiledCache(tmp_path / "cache"))
    with pytest.raises(InvalidArgumentError, match="Core ML does not compile.*only support on macOS"):
        runtime.load(save_affine(tmp_path), unit=Unit.ANE, num_threads=1, options={})
    assert entries(runtime) == []


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize("unit", [Unit.ANE, Unit.CPU])
def test_weights_that_others_write_to(runtime: CoreMl, tmp_path: Path, executor: str, unit: Unit) -> None:
    path = tmp_path / "dense.mlpackage"
    built = dense(128)
    built.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    lower(built, path, LowerOptions())
    executable = runtime.load(path, unit=unit, num_threads=1, options={"coreml.executor": executor})
    given = {"x": np.linspace(-1, 1, 128, dtype=np.float32)[np.newaxis]}
    before = executable.run(given, ["y"])["y"]
    (weights,) = path.rglob("weight.bin")
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(64)
    np.testing.assert_array_equal(executable.run(given, ["y"])["y"], before)
    weights.write_bytes(bytes(size))
    np.testing.assert_array_equal(executable.run(given, ["y"])["y"], before)


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ("onnxruntime", f"{64 << 20} bytes that a run may take in all, by --run-memory-bytes"),
        ("reference", "Unable to allocate 256. MiB"),
    ],
)
def test_a_run_keeps_to_its_memory_limit_where_shapes_alone_decide_it(
    tmp_path: Path, executor: str, words: str
) -> None:
    from coremltools.converters.mil.mil import get_new_symbol

    @program(half_tensor(get_new_symbol(), 1))
    def outer(x: Any) -> Any:
        product = mb.matmul(x=x, y=x, transpose_y=True)
        return mb.reduce_max(x=product, axes=[0, 1], keep_dims=True, name="y")

    path = save(tmp_path, outer, inputs=[ct.TensorType(name="x", shape=(ct.RangeDim(1, 1 << 14), 1))])
    runtime = CoreMl(ELSEWHERE, CompiledCache(tmp_path / "cache"), run_bytes=64 << 20)
    executable = runtime.load(path, unit=Unit.ANE, num_threads=1, options={"coreml.executor": executor})
    small = np.ones((4, 1), np.float32)
    assert executable.run({"x": small}, ["y"])["y"].item() == 1
    with pytest.raises(InvalidArgumentError, match=words):
        executable.run({"x": np.ones((1 << 13, 1), np.float32)}, ["y"])
    assert executable.run({"x": small}, ["y"])["y"].item() == 1
    executable.close()
