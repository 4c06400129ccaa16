"""Worker processes that die, hang and fail, and what their callers see of it."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from support import fragile
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError
from triune.hosting import HostedExecutable, Limits, executable, kill_all

QUICK = Limits(load_seconds=30, close_seconds=2, delays_seconds=(0.0, 0.01), rest_seconds=0.3)


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[HostedExecutable]:
    executable = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    yield executable
    executable.close()


def run(hosted: HostedExecutable, value: float) -> float:
    return float(hosted.run({"x": np.full((1, 2), value, np.float32)}, ["y"])["y"][0, 0])


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_says_what_the_executable_says(hosted: HostedExecutable) -> None:
    assert (hosted.signature, hosted.unit, hosted.precision, hosted.report) == (
        fragile.Fragile.signature,
        fragile.Fragile.unit,
        fragile.Fragile.precision,
        fragile.Fragile.report,
    )


@pytest.mark.parametrize(
    ("value", "how"),
    [(fragile.DIE, "was killed by SIGKILL"), (fragile.EXIT, "ended with exit code 3")],
    ids=["kill", "exit"],
)
def test_a_death_is_the_error_of_the_request_under_way_only(
    hosted: HostedExecutable, value: float, how: str, tmp_path: Path
) -> None:
    assert run(hosted, 1) == 2
    with pytest.raises(InternalError, match=rf"'fragile' {how} while it computed this request.*started again"):
        run(hosted, value)
    assert run(hosted, 3) == 6
    first, second = fragile.pids(tmp_path)
    assert is_gone(first)
    assert hosted.pid == second


@pytest.mark.parametrize(
    ("value", "num_processes"),
    [(fragile.TAKE, 1), (fragile.TAKE_ANYWAY, 2), (fragile.ABORT, 2)],
    ids=["refused", "watched", "aborted"],
)
def test_a_run_takes_no_more_memory_than_it_may(tmp_path: Path, value: float, num_processes: int) -> None:
    limits = replace(QUICK, run_bytes=128 << 20)
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=limits)
    try:
        assert run(hosted, 1) == 2
        with pytest.raises(InvalidArgumentError, match=f"more than the {128 << 20} bytes .* by --run-memory-bytes"):
            run(hosted, value)
        assert run(hosted, 3) == 6
        assert len(fragile.pids(tmp_path)) == num_processes
    finally:
        hosted.close()


def test_a_death_while_nothing_runs_is_nobodys_error(hosted: HostedExecutable, tmp_path: Path) -> None:
    for number in range(3):
        pid = hosted.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(fragile.pids(tmp_path)) == number + 2)  # noqa: B023
        assert run(hosted, number) == 2 * number


def test_a_process_left_behind_does_not_hide_the_death(hosted: HostedExecutable) -> None:
    started = time.monotonic()
    with pytest.raises(InternalError, match="SIGKILL"):
        run(hosted, fragile.GO_ON)
    # What was left behind ends after a minute.
    assert time.monotonic() - started < 30
    assert run(hosted, 1) == 2


def test_errors_cross_and_harm_nothing(hosted: HostedExecutable, tmp_path: Path) -> None:
    for _ in range(5):
        with pytest.raises(InvalidArgumentError, match=r"^x is refused$"):
            run(hosted, fragile.REFUSE)
        with pytest.raises(InternalError, match=r"KeyError: 'x'"):
            run(hosted, fragile.FAIL)
    assert run(hosted, 1) == 2
    assert len(fragile.pids(tmp_path)) == 1


def test_requests_that_kill_are_not_held_against_it_while_others_are_answered(
    hosted: HostedExecutable, tmp_path: Path
) -> None:
    for _ in range(4):
        with pytest.raises(InternalError):
            run(hosted, fragile.DIE)
        assert run(hosted, 1) == 2
    assert len(fragile.pids(tmp_path)) == 5


def test_a_load_that_fails_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "refuse").touch()
    with pytest.raises(InvalidArgumentError, match="the model file is broken"):
        HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    (tmp_path / "refuse").unlink()
    (tmp_path / "die").touch()
    with pytest.raises(InternalError, match="'fragile' was killed by SIGKILL while it loaded"):
        HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    until(lambda: all(map(is_gone, fragile.pids(tmp_path))))


def test_a_load_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    with pytest.raises(UnavailableError, match=r"'fragile' was not loaded within 3 s"):
        HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=Limits(load_seconds=3))
    assert all(map(is_gone, fragile.pids(tmp_path)))


def test_a_run_that_hangs_is_ended_and_harms_no_other(tmp_path: Path) -> None:
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=Limits(run_seconds=1))
    try:
        with pytest.raises(UnavailableError, match=r"did not answer within 1 s; its process was ended"):
            hosted.run({"x": np.full((1, 1), fragile.SLEEP, np.float32)}, ["y"])
        assert hosted.run({"x": np.ones((1, 1), np.float32)}, ["y"])["y"].item() == 2
        assert len(fragile.pids(tmp_path)) == 2
    finally:
        hosted.close()


def test_after_repeated_failures_it_is_given_up_and_tried_once_more_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_seconds = 0
    monkeypatch.setattr(executable, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed_seconds))
    limits = replace(QUICK, rest_seconds=1000)
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=limits)
    (tmp_path / "refuse").touch()
    with pytest.raises(InternalError):
        run(hosted, fragile.DIE)
    with pytest.raises(UnavailableError, match=r"failed 3 times in a row.*given up: the model file is broken.*tried"):
        run(hosted, 1)
    # The first load, and one for each delay.
    assert len(fragile.pids(tmp_path)) == 3
    with pytest.raises(UnavailableError, match="given up"):
        run(hosted, 1)
    assert len(fragile.pids(tmp_path)) == 3
    passed_seconds = 1001
    with pytest.raises(UnavailableError, match="failed 4 times"):
        run(hosted, 1)
    assert len(fragile.pids(tmp_path)) == 4
    (tmp_path / "refuse").unlink()
    passed_seconds = 2002
    assert run(hosted, 1) == 2
    with pytest.raises(InternalError):
        run(hosted, fragile.DIE)
    assert run(hosted, 1) == 2
    hosted.close()


def test_closing_frees_the_executable_and_ends_the_process(tmp_path: Path) -> None:
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    hosted.close()
    assert (tmp_path / "closed").exists()
    assert all(map(is_gone, fragile.pids(tmp_path)))


def test_closing_while_it_is_started_again(tmp_path: Path) -> None:
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    (tmp_path / "hang").touch()
    with pytest.raises(InternalError):
        run(hosted, fragile.DIE)
    until(lambda: len(fragile.pids(tmp_path)) == 2)
    hosted.close()
    assert all(map(is_gone, fragile.pids(tmp_path)))
    with pytest.raises(UnavailableError, match="closed"):
        run(hosted, 1)


def test_closing_while_it_is_given_up(tmp_path: Path) -> None:
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=QUICK)
    (tmp_path / "die").touch()
    with pytest.raises(InternalError):
        run(hosted, fragile.DIE)
    with pytest.raises(UnavailableError, match="was killed by SIGKILL while it loaded"):
        run(hosted, 1)
    hosted.close()


def test_what_the_model_prints_is_no_output_of_ours(tmp_path: Path) -> None:
    program = f"""
import functools, numpy, pathlib
from support import fragile
from triune.hosting import HostedExecutable
hosted = HostedExecutable(functools.partial(fragile.load, pathlib.Path({str(tmp_path)!r})), "fragile")
hosted.run({{"x": numpy.full((1, 1), fragile.PRINT, numpy.float32)}}, ["y"])
hosted.close()
print("ours")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_env())
    assert result.stdout == "ours\n"
    assert result.stderr == "printed by the model\n"


@pytest.mark.parametrize(
    ("value", "sign"),
    [
        (1.0, None),
        (fragile.SLEEP, "asleep"),
        # While the GIL is held, no thread can find that the server has gone. Other systems have no other way.
        pytest.param(
            fragile.HOLD, "holding", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux kills it")
        ),
    ],
    ids=["idle", "busy", "holding"],
)
def test_it_ends_when_its_server_is_killed(tmp_path: Path, value: float, sign: str | None) -> None:
    os.mkfifo(tmp_path / "go-on")
    program = f"""
import functools, numpy, pathlib, time
from support import fragile
from triune.hosting import HostedExecutable
hosted = HostedExecutable(functools.partial(fragile.load, pathlib.Path({str(tmp_path)!r})), "fragile")
print("ready", flush=True)
hosted.run({{"x": numpy.full((1, 1), {value}, numpy.float32)}}, ["y"])
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=_env()) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        if sign is not None:
            until((tmp_path / sign).exists)
        (pid,) = fragile.pids(tmp_path)
        assert not is_gone(pid)
        server.kill()
    until(lambda: is_gone(pid))


def test_interrupts_of_the_whole_group_are_not_for_it(hosted: HostedExecutable) -> None:
    assert hosted.pid is not None
    assert os.getpgid(hosted.pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(hosted.pid, number)
    pid = hosted.pid
    assert run(hosted, 1) == 2
    assert hosted.pid == pid


def test_callers_of_several_side_by_side_while_one_is_killed(tmp_path: Path) -> None:
    folders = [tmp_path / str(index) for index in range(2)]
    for folder in folders:
        folder.mkdir()
    first, second = (
        HostedExecutable(functools.partial(fragile.load, folder), "'fragile'", limits=QUICK) for folder in folders
    )
    stop = threading.Event()

    def work(hosted: HostedExecutable) -> tuple[int, list[TriuneError]]:
        num_answers, errors = 0, list[TriuneError]()
        while not stop.is_set():
            try:
                assert run(hosted, 5) == 10
                num_answers += 1
            except TriuneError as error:
                errors.append(error)
        return num_answers, errors

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, each) for each in (first, second)]
        for _ in range(3):
            until(lambda: first.pid is not None)
            time.sleep(0.2)
            os.kill(first.pid or 0, signal.SIGKILL)
            time.sleep(0.2)
        until(lambda: first.pid is not None)
        stop.set()
        (num_first, first_errors), (num_second, second_errors) = (each.result() for each in futures)
    assert num_first > 0
    assert num_second > 0
    assert len(first_errors) <= 3
    assert all("was killed by SIGKILL" in str(error) for error in first_errors)
    assert second_errors == []
    first.close()
    second.close()


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_process_that_is_stopped_is_replaced_and_its_request_told(tmp_path: Path) -> None:
    limits = replace(QUICK, stopped_seconds=0.2)
    hosted = HostedExecutable(functools.partial(fragile.load, tmp_path), "'fragile'", limits=limits)
    try:
        assert run(hosted, 1) == 2
        pid = hosted.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(InternalError, match=r"was stopped by SIGSTOP.*0.2 s.*while it computed this request"):
            run(hosted, 2)
        assert run(hosted, 3) == 6
        assert is_gone(pid)
        assert hosted.pid != pid
    finally:
        hosted.close()


def test_a_process_that_goes_on_is_left_alone(hosted: HostedExecutable) -> None:
    pid = hosted.pid
    assert pid is not None
    for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT):
        os.kill(pid, number)
    assert run(hosted, 3) == 6
    assert hosted.pid == pid


def test_a_process_that_is_stopped_while_it_loads_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="was stopped by SIGSTOP"):
        HostedExecutable(_stop_oneself, "'stopped'", limits=replace(QUICK, stopped_seconds=0.1))


def _stop_oneself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def test_all_end_with_the_process_even_those_that_are_stopped(hosted: HostedExecutable) -> None:
    pid = hosted.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    kill_all()
    until(lambda: is_gone(pid))


def test_an_interrupted_run_is_told_and_the_process_replaced(hosted: HostedExecutable, tmp_path: Path) -> None:
    pid = hosted.pid
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, hosted, fragile.SLEEP)
        until((tmp_path / "asleep").exists)
        hosted.interrupt()
        with pytest.raises(InternalError, match="SIGKILL while it computed this request"):
            future.result()
    assert run(hosted, 3) == 6
    assert hosted.pid != pid
