"""What is particular to one adapter; what holds for all is in the contract suite."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from contract.runtimes.models import dense, identity, save
from support.repositories import counting
from triune import runtimes
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.requests import Parameter
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.cpu import Cpu
from triune.hardware.units import detect_units, is_installed
from triune.runtimes.onnxruntime import OnnxRuntime

XEON = Cpu("Xeon", 2, frozenset({"amx_tile", "amx_bf16"}))
EPYC = Cpu("EPYC", 2, frozenset({"avx2"}))
needs_openvino = pytest.mark.skipif(not is_installed("openvino"), reason="needs pip install 'triune[openvino]'")


def in_a_fresh_python(code: str, home: Path, *, is_ci: bool = False) -> str:
    """OpenVINO itself sends nothing where CI is set; without it, only Triune's care keeps it quiet."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(home)} | ({"CI": "true"} if is_ci else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_room_imports_no_library(tmp_path: Path) -> None:
    code = (
        "import sys, triune.runtimes as r; r.missing(); print({'onnx', 'onnxruntime', 'openvino'} & set(sys.modules))"
    )
    assert in_a_fresh_python(code, tmp_path).strip() == "set()"


@needs_openvino
def test_openvino_sends_nothing_home(tmp_path: Path) -> None:
    code = (
        "import sys, threading, triune.runtimes.openvino, openvino\n"
        "print([name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools.ovc')])\n"
        "print([thread.name for thread in threading.enumerate()])"
    )
    assert in_a_fresh_python(code, tmp_path).splitlines() == ["[]", "['MainThread']"]
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_who_imported_openvino_before_keeps_its_converter(tmp_path: Path) -> None:
    code = (
        "import openvino, triune.runtimes.openvino\n"
        "from openvino.tools.ovc import convert_model\n"
        "print(openvino.convert_model is convert_model)"
    )
    assert in_a_fresh_python(code, tmp_path, is_ci=True).strip() == "True"


def test_what_is_available() -> None:
    found = runtimes.available(detect_units(EPYC))
    assert next(iter(found)) == "onnxruntime"
    assert ("openvino" in found) == is_installed("openvino")
    assert all(name == runtime.name for name, runtime in found.items())
    assert ("openvino" in runtimes.missing()) != ("openvino" in found)


def test_a_missing_library_tells_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'triune[openvino]'" in runtimes.missing()["openvino"]
    assert list(runtimes.available(detect_units(EPYC))) == ["onnxruntime"]


@needs_openvino
def test_openvino_prefers_amx_where_the_machine_has_it() -> None:
    has_amx = runtimes.available(detect_units(XEON, is_installed=lambda _: True))["openvino"]
    assert has_amx.units() == (Unit.AMX, Unit.CPU)
    assert runtimes.available(detect_units(EPYC))["openvino"].units() == (Unit.CPU,)
    assert runtimes.available(())["openvino"].units() == (Unit.CPU,)


@needs_openvino
def test_an_absent_unit_is_refused_with_its_reason(tmp_path: Path) -> None:
    openvino = runtimes.available(detect_units(EPYC))["openvino"]
    path = save(identity(), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match="'amx' here: EPYC has no AMX tiles"):
        openvino.load(path, unit=Unit.AMX, num_threads=1, options={})


@needs_openvino
def test_amx_is_never_faked(tmp_path: Path) -> None:
    from triune.hardware.cpu import read_cpu

    # OpenVINO computes in bf16 wherever there is AVX-512, tiles or not: there the claim alone would be false.
    if "avx512f" in read_cpu().features:
        pytest.skip("OpenVINO computes in bf16 on this CPU")
    # Told of an AMX that is not there, OpenVINO would go on in fp32 and keep quiet.
    claimed = UnitStatus(Unit.AMX, Presence.PRESENT, "a claim")
    openvino = runtimes.available([claimed])["openvino"]
    path = save(identity(), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match="does not compute in bf16 on this CPU"):
        openvino.load(path, unit=Unit.AMX, num_threads=1, options={})


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_thread_count": "2"},
        {"intra_op_thread_count": "0", "inter_op_thread_count": "2", "execution_mode": "1"},
        {"optimization.graph.level": "-1"},
        {"optimization.graph.level": "2"},
        {"enable_mem_arena": "0", "enable_mem_pattern": "0"},
        {"enable_mem_arena": "1", "memory.enable_memory_arena_shrinkage": "cpu:0"},
        {"session.intra_op.allow_spinning": "1", "session.inter_op.allow_spinning": "true"},
        {"session.set_denormal_as_zero": "1", "session.use_device_allocator_for_initializers": "1"},
    ],
    ids=str,
)
def test_onnxruntimes_options_change_no_answer(tmp_path: Path, options: dict[str, Parameter]) -> None:
    path = save(dense(32, num_layers=3), tmp_path / "model.onnx")
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options=options)
    x = np.ones((4, 32), np.float32)
    np.testing.assert_allclose(executable.run({"x": x}, ["y"])["y"], x, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intra_op_thread_count", "-1"),
        ("intra_op_thread_count", "many"),
        ("execution_mode", "2"),
        ("optimization.graph.level", "3"),
        ("enable_mem_arena", "perhaps"),
        ("session.intra_op.allow_spinning", "2"),
        ("session.qdq_matmulnbits_accuracy_level", "5"),
        ("intra_op_num_threads", "1"),
        ("memory.enable_memory_arena_shrinkage", "gpu"),
    ],
)
def test_onnxruntimes_options_that_are_wrong(tmp_path: Path, name: str, value: str) -> None:
    path = save(identity(), tmp_path / "model.onnx")
    with pytest.raises(InvalidArgumentError, match=name):
        OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={name: value})


def test_an_arena_that_is_off_cannot_shrink(tmp_path: Path) -> None:
    options = {"enable_mem_arena": "0", "memory.enable_memory_arena_shrinkage": "cpu:0"}
    with pytest.raises(InvalidArgumentError, match="needs an arena"):
        OnnxRuntime().load(save(identity(), tmp_path / "m.onnx"), unit=Unit.CPU, num_threads=1, options=options)


@needs_openvino
def test_openvinos_options_reach_it(tmp_path: Path) -> None:
    openvino = runtimes.available(())["openvino"]
    path = save(dense(32), tmp_path / "model.onnx")
    options = {"INFERENCE_NUM_THREADS": "2", "COMPILATION_NUM_THREADS": "1", "PERFORMANCE_HINT": "LATENCY"}
    executable = openvino.load(path, unit=Unit.CPU, num_threads=1, options=options)
    x = np.ones((4, 32), np.float32)
    np.testing.assert_allclose(executable.run({"x": x}, ["y"])["y"], x, rtol=1e-6)


def test_onnx_runtime_ends_a_run_that_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(counting())
    executable = OnnxRuntime().load(path, unit=Unit.CPU, num_threads=1, options={})
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(executable.run, {"n": np.array([2**62])}, ["y"])
        executable.interrupt()
        with pytest.raises(UnavailableError, match="took too long"):
            endless.result()
    assert executable.run({"n": np.array([5])}, ["y"])["y"].tolist() == [5]
    executable.close()
