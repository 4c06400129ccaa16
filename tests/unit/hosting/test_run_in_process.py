"""Work done once in a process of its own: that goes well, fails, dies, hangs, and whose caller is killed."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from support import fragile
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError
from triune.hosting import HostedExecutable, Limits, MemoryLimitError, WorkerProcess, run_in_process


def run(folder: Path, seconds: float = 30) -> None:
    run_in_process(functools.partial(fragile.load, folder), "the work", Limits(load_seconds=seconds))


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_is_done_elsewhere_and_the_process_is_gone(tmp_path: Path) -> None:
    run(tmp_path)
    (pid,) = fragile.pids(tmp_path)
    assert pid != os.getpid()
    assert is_gone(pid)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("refuse", InvalidArgumentError, "^the model file is broken$"),
        ("die", InternalError, "the worker process of the work was killed by SIGKILL before that was done"),
        ("hang", UnavailableError, "the work was not done within 3 s; its process was ended"),
    ],
)
def test_what_goes_wrong_is_told(tmp_path: Path, how: str, kind: type[Exception], message: str) -> None:
    (tmp_path / how).touch()
    with pytest.raises(kind, match=message):
        run(tmp_path, 3)
    (pid,) = fragile.pids(tmp_path)
    assert is_gone(pid)


def test_a_process_whose_temporary_folder_was_removed_gets_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = WorkerProcess("the work", Limits())
    try:
        (folder,) = tmp_path.iterdir()
        process.work(tempfile.mkdtemp)
        shutil.rmtree(folder)
        process.work(tempfile.mkdtemp)
        assert len(list(folder.iterdir())) == 1
    finally:
        process.kill()
        process.free()
    assert list(tmp_path.iterdir()) == []


def test_it_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    program = f"""
import functools, pathlib
from support import fragile
from triune.hosting import run_in_process
run_in_process(functools.partial(fragile.load, pathlib.Path({str(tmp_path)!r})), "the work")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as caller:
        deadline = time.monotonic() + 60
        while not fragile.pids(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        caller.kill()
    (pid,) = fragile.pids(tmp_path)
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def take_memory(num_bytes: int) -> None:
    taken: list[bytearray] = []
    for _ in range(num_bytes >> 20):
        # Written to: what is not takes none.
        taken.append(bytearray(b"x") * (1 << 20))
    time.sleep(60)


def test_it_is_ended_for_the_memory_that_it_takes() -> None:
    limits = Limits(load_seconds=60, memory_bytes=256 << 20)
    with pytest.raises(
        MemoryLimitError, match=f"of the work took more than {256 << 20} bytes of memory, and was ended before that"
    ):
        run_in_process(functools.partial(take_memory, 1 << 29), "the work", limits)


def take_memory_in_a_child(num_bytes: int) -> None:
    # The child ends when this process does.
    code = f"import sys; taken = bytearray(b'x') * {num_bytes}; sys.stdin.read()"
    subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE).wait()


def test_it_is_ended_for_the_memory_of_its_children() -> None:
    with pytest.raises(MemoryLimitError, match="took more than"):
        run_in_process(functools.partial(take_memory_in_a_child, 1 << 29), "the work", Limits(memory_bytes=256 << 20))


def test_what_stays_below_its_limits_is_done() -> None:
    run_in_process(functools.partial(bytearray, 1 << 20), "the work", Limits(memory_bytes=1 << 30, cpu_seconds=100))


def compute_for_ever() -> None:
    while True:
        pass


def test_it_is_ended_for_the_time_that_it_computes() -> None:
    with pytest.raises(InternalError, match="was killed by SIGXCPU"):
        run_in_process(compute_for_ever, "the work", Limits(load_seconds=60, cpu_seconds=2))


def leave_files(how: str) -> None:
    folder = tempfile.mkdtemp()
    (Path(folder) / "left").write_text("left")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fail":
        raise InvalidArgumentError(folder)
    if how == "hang":
        time.sleep(60)


@pytest.mark.parametrize("how", ["end", "die", "fail", "hang"])
def test_it_leaves_no_temporary_files(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.nullcontext() if how == "end" else pytest.raises(TriuneError):
        run_in_process(functools.partial(leave_files, how), "the work", Limits(load_seconds=3))
    assert list(tmp_path.iterdir()) == []


def test_a_hosted_executable_leaves_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "fragile")
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    hosted.close()
    assert list((tmp_path / "temporary").iterdir()) == []
