import os
import sys
import types
from pathlib import Path

import pytest

from triune.hardware import outputs
from triune.hardware.caches import Cache, parse_caches, read_caches
from triune.hardware.nvml import parse_nvml, read_nvml
from triune.hardware.outputs import read_outputs, run
from triune.hardware.tiles import ask_for_tiles, parse_tiles


def test_a_command_that_prints() -> None:
    assert run(("/bin/echo", "hw.ncpu: 8")) == ("hw.ncpu: 8\n", "")


def test_a_command_that_fails_after_printing_has_printed() -> None:
    text, reason = run(("/bin/sh", "-c", "echo hw.ncpu: 8; echo unknown oid >&2; exit 1"))
    assert (text, reason) == ("hw.ncpu: 8\n", "")


def test_a_command_that_prints_nothing_says_why() -> None:
    assert run(("/bin/sh", "-c", "echo no such class >&2")) == ("", "/bin/sh printed nothing: no such class")
    assert run(("/bin/sh", "-c", "exit 3")) == ("", "/bin/sh printed nothing: exit status 3")
    text, reason = run(("/no/such/ioreg", "-l"))
    assert text == ""
    assert reason.startswith("/no/such/ioreg did not run: ")


def test_a_command_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_SECONDS", 0.05)
    text, reason = run(("/bin/sleep", "60"))
    assert text == ""
    assert "timed out" in reason


def test_bytes_that_are_no_text_are_read_all_the_same() -> None:
    assert run(("/bin/sh", "-c", r"printf 'a\377b'"))[0] == "a\ufffdb"


@pytest.mark.skipif(sys.platform != "linux", reason="these are files of Linux")
def test_this_machine() -> None:
    found = read_outputs()
    assert (found.system, found.machine) == ("linux", os.uname().machine)
    assert found.memory_bytes > 0
    assert found.cpu().num_cores == found.num_cores >= 1
    assert set(found.texts) == {"cpuinfo", "caches", "tiles", "nvidia", "nvml"}


def test_the_kernel_answers_the_same_twice() -> None:
    first = parse_tiles(ask_for_tiles())
    assert parse_tiles(ask_for_tiles()) == first


def test_caches_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate([("1", "Data", "48K"), ("3", "Unified", "300M"), ("2", "Odd", "1K")]):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("id", "7")):
            (folder / name).write_text(f"{text}\n")
    (tmp_path / "index3").mkdir()
    (tmp_path / "index3" / "level").mkdir()
    assert parse_caches(read_caches(tmp_path)) == (Cache(1, "data", 48 << 10), Cache(3, "unified", 300 << 20))
    assert read_caches(tmp_path / "none") == ""


class NvmlError(Exception):
    """What a function of NVML raises."""


def library(**changes: object) -> types.SimpleNamespace:
    """nvidia-ml-py, of which a part of NVML answers as on an H200."""

    def refuse(*_: object) -> None:
        raise NvmlError("Not Supported")

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": refuse,
        "nvmlSystemGetDriverVersion": lambda: "580.159.04",
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(total=150754820096),
        "nvmlDeviceGetNumGpuCores": lambda _: 16896,
        "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
        "nvmlDeviceGetMemoryBusWidth": refuse,
        "nvmlDeviceGetMaxClockInfo": refuse,
    }
    return types.SimpleNamespace(NVMLError=NvmlError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, **{**answers, **changes})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "pynvml" or None)
    return monkeypatch


def test_what_a_gpu_does_not_tell_is_unknown(installed: pytest.MonkeyPatch) -> None:
    installed.setitem(sys.modules, "pynvml", library())  # type: ignore[arg-type]
    (gpu,), reason = parse_nvml(read_nvml())
    assert (gpu.name, gpu.driver, gpu.num_multiprocessors, reason) == ("NVIDIA H200", "580.159.04", 132, "")
    assert (gpu.bus_width_bits, gpu.gb_per_s, gpu.fp32_tflops) == (None, None, None)


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_library_without_a_driver_says_why(name: str, installed: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NvmlError("Driver Not Loaded")

    installed.setitem(sys.modules, "pynvml", library(**{name: fail}))  # type: ignore[arg-type]
    gpus, reason = parse_nvml(read_nvml())
    assert gpus == ()
    assert reason.endswith("Driver Not Loaded")


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert parse_nvml(read_nvml()) == ((), "nvidia-ml-py is not installed: pip install 'triune[energy]'")
