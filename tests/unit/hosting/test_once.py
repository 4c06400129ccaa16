"""Work done once in a process of its own: that goes well, fails, dies, hangs, and whose caller is killed."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support import fragile
from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError
from triune.hosting import Limits, run_apart


def run(folder: Path, seconds: float = 30) -> None:
    run_apart(functools.partial(fragile.load, folder), "the work", Limits(load_seconds=seconds))


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


def test_it_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    program = f"""
import functools, pathlib
from support import fragile
from triune.hosting import run_apart
run_apart(functools.partial(fragile.load, pathlib.Path({str(tmp_path)!r})), "the work")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as caller:
        deadline = time.monotonic() + 20
        while not fragile.pids(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        caller.kill()
    (pid,) = fragile.pids(tmp_path)
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
