"""Compiling, warming up and measuring a version."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from support.repositories import (
    FP32,
    STRING,
    Bench,
    NoModels,
    affine,
    counting,
    identity,
    scaled_by_scalar,
    write_model,
)
from triune.arbiter.cost import BatchCost
from triune.backends.attempt import Attempt
from triune.backends.machine_backend import Shared
from triune.backends.registry import Backends, typed_failures
from triune.backends.tensor.backend import TensorBackend
from triune.backends.tensor.build import TensorBuild
from triune.backends.tensor.quick import is_quick
from triune.config.configure import configure, read_source
from triune.config.stamps import stamp
from triune.config.unsupported import hints_without_effect
from triune.core.clock import MonotonicClock, VirtualClock
from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.units import Unit
from triune.graph.optimizing.level import Level
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage
from triune.repository.memory.ledger import MemoryLedger
from triune.repository.model import ModelState
from triune.repository.record import ModelRecord, Serving
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.scheduling.kept_costs import KeptCosts

UNITS = "parameters {{ key: 'units' value {{ string_value: '{}' }} }}"


def build(
    bench: Bench, path: Path, config: str | None = None, model: bytes | None = None, previous: TensorBuild | None = None
) -> TensorBuild:
    write_model(path, "m", config, **({"v1": model} if model is not None else {}))
    source = read_source("m", path / "m", stamp(path / "m"))
    with typed_failures("m", 1):
        return TensorBackend(bench.machine, MonotonicClock()).build(source, 1, previous, Attempt())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/tmp/triune-held-a/triune-weights-b/weights"),
        RuntimeError("the runtime cannot write its cache: No space left on device"),
    ],
)
def test_temporary_files_that_cannot_be_written_are_no_fault_of_the_model(error: Exception) -> None:
    told = "^its load needs temporary files.*make room there"
    with pytest.raises(UnavailableError, match=told), typed_failures("m", 1):
        raise error


def test_a_model_in_the_temporary_folder_that_vanishes_is_told_of() -> None:
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{tempfile.gettempdir()}/models/m/1/model.onnx")
    with pytest.raises(InternalError, match="models/m/1/model.onnx"), typed_failures("m", 1):
        raise error


def test_each_unit_is_served_by_its_runtime(tmp_path: Path) -> None:
    bench = Bench(num_cores=8)
    text = (
        UNITS.format("cpu,amx") + " instance_group { count: 2 } parameters { key: 'level' value { string_value: '3' } }"
    )
    built = build(bench, tmp_path, text, affine())
    assert [(each.unit, each.recipe.runtime) for each in built.executables] == [
        (Unit.CPU, "onnxruntime"),
        (Unit.CPU, "onnxruntime"),
        (Unit.AMX, "openvino"),
        (Unit.AMX, "openvino"),
    ]
    path = tmp_path / "m/1/model.onnx"
    assert bench.onnxruntime.loads == [(path, Unit.CPU, 4, {"level": "3"})] * 2
    # The parameters are ONNX Runtime's: OpenVINO would not know them.
    assert bench.openvino.loads == [(path, Unit.AMX, 4, {})] * 2
    built.close()
    assert bench.num_open == 0


def test_times_of_batches_are_stored_for_each_executable(tmp_path: Path) -> None:
    bench = Bench(num_cores=8)
    write_model(tmp_path, "m", UNITS.format("cpu,amx") + " instance_group { count: 2 }", v1=affine())
    source = read_source("m", tmp_path / "m", stamp(tmp_path / "m"))
    kept: list[list[KeptCosts]] = []
    for folder in (tmp_path / "batches", None):
        backend = TensorBackend(bench.machine, MonotonicClock(), shared=Shared(costs=folder))
        built = backend.build(source, 1, None, Attempt())
        kept.append(list(built.kept))
        built.close()
    (first, second, third, fourth), none = kept
    first.keep([BatchCost(1.0, 2.0)])
    third.keep([BatchCost(1.0, 3.0)])
    assert len(list((tmp_path / "batches").iterdir())) == 2
    backend = TensorBackend(bench.machine, MonotonicClock(), shared=Shared(costs=tmp_path / "batches"))
    built = backend.build(source, 1, None, Attempt())
    assert [each.found[0].ns for each in built.kept] == [2.0, 2.0, 3.0, 3.0]
    built.close()
    assert (second.found, fourth.found, none) == ([], [], [])


def test_processes_that_the_memory_does_not_hold_are_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()._replace(available=300 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()
    own = "parameters { key: 'own_process' value { string_value: 'true' } } instance_group { count: %d }"
    before = {each.pid for each in psutil.Process().children()}
    with pytest.raises(UnavailableError, match="asks for 1023 more worker processes .* at most [1-9] fit") as error:
        build(bench, tmp_path, own % 1024, affine())
    assert "give a smaller count in instance_group" in str(error.value)
    assert {each.pid for each in psutil.Process().children()} <= before
    build(bench, tmp_path, own % 2).close()
    build(bench, tmp_path, "instance_group { count: 20 }").close()


def test_openvino_serves_both_of_its_units(tmp_path: Path) -> None:
    bench = Bench()
    build(bench, tmp_path, "backend: 'openvino' " + UNITS.format("amx,cpu"), affine()).close()
    assert [each[1] for each in bench.openvino.loads] == [Unit.AMX, Unit.CPU]
    assert bench.onnxruntime.loads == []


def test_the_error_against_cpu_is_measured(tmp_path: Path) -> None:
    bench = Bench()
    built = build(bench, tmp_path, UNITS.format("cpu,amx"), affine(1.37))
    assert set(built.verdicts) == {Unit.AMX}
    config = built.config
    inputs = bench.onnxruntime.executables[0].runs[0]
    cpu, amx = (each.run(inputs, list(config.outputs))["y"] for each in built.executables)
    assert built.verdicts[Unit.AMX].largest == np.abs(cpu.astype(np.float64) - amx).max() > 0
    assert "error" in str(built)


def test_the_error_is_measured_without_cpu_too_and_the_spare_executable_goes(tmp_path: Path) -> None:
    bench = Bench()
    built = build(bench, tmp_path, UNITS.format("amx"), affine(1.37))
    assert built.verdicts[Unit.AMX].largest > 0
    assert [each[1] for each in bench.onnxruntime.loads] == [Unit.CPU]
    assert bench.onnxruntime.num_open == 0
    assert bench.openvino.num_open == 1


def test_a_model_that_takes_no_sample_says_that_its_error_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> dict[str, np.ndarray]:
        raise InvalidArgumentError("x must have 511 columns")

    bench = Bench()
    load = bench.onnxruntime.load

    def load_refusing(*args: object, **kwargs: object) -> object:
        executable = load(*args, **kwargs)
        executable.run = refuse
        return executable

    bench.onnxruntime.load = load_refusing
    built = build(bench, tmp_path, UNITS.format("cpu,amx"), affine(shape=["b", "n"]))
    assert built.verdicts == {}
    assert "error of amx against cpu is unavailable" in caplog.text
    assert "511 columns" in caplog.text


@pytest.mark.parametrize("model", [identity(STRING, ["b", 2]), scaled_by_scalar()])
def test_errors_of_strings_and_scalars(tmp_path: Path, model: bytes) -> None:
    built = build(Bench(), tmp_path, UNITS.format("cpu,amx"), model)
    assert built.verdicts[Unit.AMX].largest < 0.1


def break_openvino(bench: Bench, factor: float) -> None:
    """Its answers are multiplied by a factor."""
    load = bench.openvino.load

    def load_broken(*args: object, **kwargs: object) -> object:
        executable = load(*args, **kwargs)
        run = executable.run
        executable.run = lambda *given: {name: array * np.float32(factor) for name, array in run(*given).items()}
        return executable

    bench.openvino.load = load_broken


@pytest.mark.parametrize("factor", [float("nan"), 1.5])
def test_a_unit_that_answers_wrongly_is_left_out(
    factor: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    break_openvino(bench, factor)
    built = build(bench, tmp_path, UNITS.format("amx,cpu"), affine())
    assert built.config.units == (Unit.CPU,)
    assert [each.unit for each in built.executables] == [Unit.CPU]
    assert bench.openvino.num_open == 0
    assert built.verdicts[Unit.AMX].largest > 0.1
    assert "output 'y' is off by" in built.verdicts[Unit.AMX].excess
    assert "is not served on amx" in caplog.text
    record = ModelRecord("m")
    backends = Backends(TensorBackend(bench.machine, MonotonicClock()), MonotonicClock())
    record.succeed({1: Serving(built, backends.assemble(built, NoModels()), MemoryLedger(1 << 30, {}).charge("m", 1))})
    (entry,) = record.index()
    assert entry.state is ModelState.READY
    assert "not on amx: its answers" in entry.reason
    with pytest.raises(UnsupportedError, match="answers on 'amx' are not those of 'cpu'.*unit_tolerance"):
        build(bench, tmp_path, UNITS.format("amx"), affine())
    assert bench.openvino.num_open == 0


def test_a_model_says_how_far_its_units_may_be_off(tmp_path: Path) -> None:
    bench = Bench()
    break_openvino(bench, 1.5)
    more = 'parameters { key: "unit_tolerance" value { string_value: "%s" } }'
    built = build(bench, tmp_path, UNITS.format("amx") + more % "0.6", affine())
    assert built.config.units == (Unit.AMX,)
    with pytest.raises(InvalidArgumentError, match="unit_tolerance"):
        build(bench, tmp_path, UNITS.format("amx") + more % "much", affine())


def test_every_instance_is_warmed_up_as_the_config_says(tmp_path: Path) -> None:
    text = """max_batch_size: 4 instance_group { count: 2 } model_warmup { name: 'w' batch_size: 3 count: 2
      inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 random_data: true } } }"""
    bench = Bench()
    build(bench, tmp_path, text, affine())
    for executable in bench.onnxruntime.executables:
        assert [run["x"].shape for run in executable.runs] == [(3, 4)] * 2


def test_a_warmup_that_takes_too_long_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triune.backends.tensor.compile.WARMUP_SECONDS", -1.0)
    text = """max_batch_size: 4 instance_group { count: 2 } model_warmup { name: 'w' batch_size: 3 count: 7
      inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 random_data: true } } }"""
    bench = Bench()
    build(bench, tmp_path, text, affine())
    assert [each.runs for each in bench.onnxruntime.executables] == [[], []]
    assert "ends after 0 of 7 runs" in caplog.text
    assert "smaller counts in model_warmup" in caplog.text


def test_a_failed_warmup_fails_the_load_and_frees_everything(tmp_path: Path) -> None:
    text = """max_batch_size: 4 instance_group { count: 3 } model_warmup { name: 'slow' batch_size: 1
      inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 input_data_file: 'gone' } } }"""
    bench = Bench()
    with pytest.raises(InvalidArgumentError, match="sample 'slow'.*gone cannot be read"):
        build(bench, tmp_path, text, affine())
    assert len(bench.onnxruntime.executables) == 1
    assert bench.num_open == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not the memory for its load now; load it again later"),
        (RuntimeError("can't start new thread"), "no thread or process for its load now: .*; try again later"),
        (
            UnsupportedError("cannot compile: Resource temporarily unavailable"),
            "no thread or process for its load now: .*; try again later",
        ),
    ],
)
def test_memory_or_threads_that_are_not_there_are_no_defect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, message: str
) -> None:
    def explode(path: Path) -> None:
        raise error

    bench = Bench()
    bench.onnxruntime.on_load = explode
    with pytest.raises(UnavailableError, match=message):
        build(bench, tmp_path, "", affine())
    assert "Traceback" not in caplog.text


def test_a_runtime_that_breaks_in_an_unknown_way_is_an_internal_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(path: Path) -> None:
        if bench.onnxruntime.executables:
            raise ZeroDivisionError("of the vendor's")

    bench = Bench()
    bench.onnxruntime.on_load = explode
    with pytest.raises(InternalError, match="unexpected ZeroDivisionError while loading: of the vendor's"):
        build(bench, tmp_path, "instance_group { count: 2 }", affine())
    assert bench.num_open == 0
    assert "Traceback" in caplog.text


def test_a_parameter_of_the_models_own_is_kept_and_said_to_have_no_effect(tmp_path: Path) -> None:
    bench = Bench()
    built = build(bench, tmp_path, "parameters { key: 'owner' value { string_value: 'me' } }", affine())
    assert bench.onnxruntime.loads[0][3] == {}
    assert built.config.parameters == {"owner": "me"}
    assert hints_without_effect(built.config.message, bench.machine) == ["parameter 'owner'"]


def test_executables_of_the_same_recipe_are_taken_over(tmp_path: Path) -> None:
    bench = Bench(num_cores=1)
    old = build(bench, tmp_path, UNITS.format("cpu,amx") + " instance_group { count: 2 }", affine(1.37))
    new = build(bench, tmp_path, UNITS.format("amx,cpu") + " instance_group { count: 3 }", previous=old)
    assert len(set(new.executables) & set(old.executables)) == 4
    assert len(bench.onnxruntime.loads) + len(bench.openvino.loads) == 6
    assert new.verdicts == old.verdicts
    old.close()
    assert bench.num_open == 6
    fewer = build(bench, tmp_path, UNITS.format("amx"), previous=new)
    assert set(fewer.executables) < set(new.executables)
    new.close()
    assert bench.num_open == 1
    fewer.close()
    assert bench.num_open == 0


def test_of_very_many_parameters_some_are_named() -> None:
    message = ModelConfigMessage(name="m", backend="onnxruntime")
    for index in range(1000):
        message.parameters[f"k{index}"].string_value = "v"
    hints = hints_without_effect(message, Bench().machine)
    assert len(hints) == 257
    assert hints[-1] == "744 more parameters, which were not looked at for this list"


@pytest.mark.parametrize("change", ["file", "threads", "options"])
def test_executables_of_another_recipe_are_not(tmp_path: Path, change: str) -> None:
    bench = Bench(num_cores=2)
    old = build(bench, tmp_path, None, affine())
    new = {
        "file": lambda: build(bench, tmp_path, None, affine(3.0), previous=old),
        "threads": lambda: build(bench, tmp_path, "instance_group { count: 2 }", previous=old),
        "options": lambda: build(
            bench, tmp_path, "parameters { key: 'level' value { string_value: '1' } }", previous=old
        ),
    }[change]()
    assert not set(new.executables) & set(old.executables)


@pytest.mark.parametrize(
    ("config", "model", "run_ns", "expected"),
    [
        (None, affine(), 99_000, True),
        (None, affine(), 101_000, False),
        (None, affine(shape=["b", "n"]), 1, False),
        (None, identity(STRING, ["b", 2]), 1, False),
        ("instance_group { count: 2 }", affine(), 1, False),
        (UNITS.format("cpu,amx"), affine(), 1, False),
        (None, affine(shape=[2, 2]), 1, True),
        ("backend: 'openvino'", affine(), 1, True),
    ],
)
def test_only_small_models_alone_run_on_the_event_loop(
    tmp_path: Path, config: str | None, model: bytes, run_ns: int, expected: bool
) -> None:
    class Timed:
        is_steady = True
        rows: set[int] = set()  # noqa: RUF012

        def run(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
            clock.advance(run_ns)
            self.rows.add(len(inputs["x"]))
            return {}

    bench, clock, executable = Bench(), VirtualClock(), Timed()
    write_model(tmp_path, "m", config, v1=model)
    found = configure(read_source("m", tmp_path / "m", stamp(tmp_path / "m")), 1, bench.machine)
    assert is_quick(found, executable, clock) is expected  # type: ignore[arg-type]
    if expected:
        assert executable.rows == {max(found.batching.max_batch_size, 2 if model == affine(shape=[2, 2]) else 1)}


@pytest.mark.parametrize("why", ["values decide its time", "an input is optional", "its rows are not the batch's"])
def test_what_was_not_measured_does_not_run_on_the_event_loop(tmp_path: Path, why: str) -> None:
    class Quick:
        is_steady = why != "values decide its time"

        def run(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
            return {"y": inputs["x"][:1] if why == "its rows are not the batch's" else inputs["x"]}

    bench = Bench()
    config = "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: 4 optional: true }"
    write_model(tmp_path, "m", config if why == "an input is optional" else None, v1=affine())
    found = configure(read_source("m", tmp_path / "m", stamp(tmp_path / "m")), 1, bench.machine)
    assert not is_quick(found, Quick(), VirtualClock())  # type: ignore[arg-type]


def test_real_models_whose_time_values_decide_run_in_threads(tmp_path: Path) -> None:
    """A Loop of as many turns as its input says: quick on the sample, and endless on 2 to the 62."""
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()
    built = build(bench, tmp_path, None, counting())
    assert built.executables[0].run({"n": np.array([5])}, ["y"])["y"].tolist() == [5]
    assert not built.is_inline
    built.close()


def test_a_disturbance_does_not_make_a_small_model_large(tmp_path: Path) -> None:
    class Disturbed:
        is_steady = True
        durations_ns = iter([10_000, 9_000_000, *[300_000] * 15, *[20_000] * 15])

        def run(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
            clock.advance(next(self.durations_ns))
            return {}

    bench, clock = Bench(), VirtualClock()
    write_model(tmp_path, "m", None, v1=affine())
    config = configure(read_source("m", tmp_path / "m", stamp(tmp_path / "m")), 1, bench.machine)
    assert is_quick(config, Disturbed(), clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(("run_ns", "expected"), [(2_000_000_000, 1), (2_000_000, 4)])
def test_a_slow_model_is_tried_as_seldom_as_can_be(tmp_path: Path, run_ns: int, expected: int) -> None:
    class Slow:
        is_steady = True
        num_runs = 0

        def run(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
            self.num_runs += 1
            clock.advance(run_ns)
            return {}

    bench, clock, executable = Bench(), VirtualClock(), Slow()
    write_model(tmp_path, "m", None, v1=affine())
    config = configure(read_source("m", tmp_path / "m", stamp(tmp_path / "m")), 1, bench.machine)
    assert not is_quick(config, executable, clock)  # type: ignore[arg-type]
    assert executable.num_runs == expected


def test_the_line_that_says_ready(tmp_path: Path) -> None:
    built = build(Bench(num_cores=8), tmp_path, UNITS.format("cpu,amx") + " instance_group { count: 2 }", affine(2.0))
    assert str(built).startswith(
        "on cpu (onnxruntime, fp32, 2 x 4 threads) and amx (openvino, bf16, 2 x 4 threads, error "
    )
    assert " in 0." in str(built)


def test_real_onnx_runtime_builds_runs_and_is_quick(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()
    built = build(bench, tmp_path, "optimization { graph { level: -1 } }", identity(FP32, ["b", 16]))
    assert built.executables[0].recipe.options == (("optimization.graph.level", "-1"),)
    assert built.executables[0].run({"x": np.ones((2, 16), np.float32)}, ["y"])["y"].sum() == 32
    assert built.is_inline
    built.close()
    with pytest.raises(InvalidArgumentError, match="execution_mode"):
        build(bench, tmp_path, "parameters { key: 'execution_mode' value { string_value: '7' } }")
    with pytest.raises(InvalidArgumentError):
        build(bench, tmp_path, None, identity(FP32, ["b", 16])[:-30])
    with pytest.raises(UnsupportedError):
        build(bench, tmp_path, UNITS.format("gpu"), identity(FP32, ["b", 16]))


def test_an_objective_that_cannot_be_met_is_told_at_the_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "parameters {{ key: 'latency_objective_ms' value {{ string_value: '{}' }} }}"
    built = build(Bench(), tmp_path, text.format("0.000001"), affine())
    (note,) = built.placement.notes if built.placement is not None else ()
    assert "latency_objective_ms of 1e-06 cannot be met even alone: one sample takes" in note
    assert "on 'cpu', the fastest of its units; allow 1" in note
    assert note in caplog.text
    built.close()
    built = build(Bench(), tmp_path, text.format("60000"))
    assert built.placement is not None
    assert not built.placement.notes
    built.close()
    with pytest.raises(InvalidArgumentError, match="'latency_objective_ms' is 'soon'"):
        build(Bench(), tmp_path, text.format("soon"))


def test_a_level_of_optimization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path / "cache"))
    text = "parameters {{ key: 'optimization_level' value {{ string_value: '{}' }} }}"
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()
    built = build(bench, tmp_path / "models", text.format("O1"), affine(2.0))
    assert built.executables[0].recipe.level is Level.O1
    assert list((tmp_path / "cache" / "optimized").glob("*/model.onnx"))
    built.close()
    with pytest.raises(InvalidArgumentError, match="'optimization_level' is 'O9'; write one of O0, O1, O2, O3"):
        build(bench, tmp_path / "models", text.format("O9"))
