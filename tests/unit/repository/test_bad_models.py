"""One bad model is one bad model: at the start, while polling, on request. So is one that the system lacks room for."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hostile import HOSTILE, Lay
from support.repositories import Bench, affine, write_model
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError
from triune.repository import folder_stamps, lifecycle
from triune.repository.model import ModelState
from triune.repository.repository import Repository
from triune.repository.settings import ControlMode
from triune.runtimes.onnxruntime import OnnxRuntime

READY, UNAVAILABLE = ModelState.READY, ModelState.UNAVAILABLE


def _bench() -> Bench:
    bench = Bench()
    bench.runtimes["onnxruntime"] = OnnxRuntime()  # type: ignore[assignment]
    return bench


def _check(repository: Repository, name: str, why: str) -> None:
    index = {each.name: each for each in repository.index()}
    assert index["good"].state is READY
    assert index[name].state is UNAVAILABLE
    assert why in index[name].reason


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("lay", "name", "why"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_at_the_start(tmp_path: Path, lay: Lay, name: str, why: str) -> None:
    write_model(tmp_path, "good", v1=affine())
    lay(tmp_path)
    repository = _bench().repository(tmp_path)
    await repository.open()
    _check(repository, name, why)
    checks = {each.name: each for each in repository.check()}
    assert not checks["good"].problems
    # A check runs no warm-up.
    assert "warmup" in why or checks[name].problems or (tmp_path / "bad/warmup").exists()
    await repository.close()


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("lay", "name", "why"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_while_polling(tmp_path: Path, lay: Lay, name: str, why: str) -> None:
    write_model(tmp_path, "good", v1=affine())
    repository = _bench().repository(tmp_path, mode=ControlMode.POLL, poll_seconds=3600)
    await repository.open()
    lay(tmp_path)
    await repository.poll()
    write_model(tmp_path, "late", v1=affine())
    await repository.poll()
    _check(repository, name, why)
    assert repository.is_ready("late")
    await repository.close()


@pytest.mark.parametrize(("lay", "name", "why"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_when_it_is_asked_for(tmp_path: Path, lay: Lay, name: str, why: str) -> None:
    write_model(tmp_path, "good", v1=affine())
    lay(tmp_path)
    repository = _bench().repository(tmp_path, mode=ControlMode.EXPLICIT, startup_models=["good"])
    await repository.open()
    is_refused = "\\" in name
    with pytest.raises(TriuneError, match="invalid model name" if is_refused else None) as raised:
        await repository.load(name)
    assert is_refused or why in str(raised.value)
    _check(repository, name, why)
    await repository.close()


async def test_a_good_model_that_goes_bad_serves_on(tmp_path: Path) -> None:
    write_model(tmp_path, "good", v1=affine())
    folder = write_model(tmp_path, "bad", v1=affine())
    repository = _bench().repository(tmp_path, mode=ControlMode.POLL, poll_seconds=3600)
    await repository.open()
    (folder / "config.pbtxt").mkdir()
    await repository.poll()
    assert repository.is_ready("bad")
    assert repository.is_every_model_ready()
    await repository.close()


def _fail_once_in(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(folder_stamps if name == "stamp" else lifecycle, name, fail)


@pytest.mark.parametrize("step", ["stamp", "read_source"])
async def test_memory_that_is_not_there_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    write_model(tmp_path, "bad", v1=affine())
    repository = Bench().repository(tmp_path, mode=ControlMode.EXPLICIT)
    await repository.open()
    _fail_once_in(monkeypatch, step, MemoryError())
    with pytest.raises(UnavailableError, match="not the memory for the load of 'bad' now; load it again later"):
        await repository.load("bad")
    assert "Traceback" not in caplog.text
    await repository.load("bad")
    await repository.close()


@pytest.mark.parametrize("step", ["stamp", "read_source"])
@pytest.mark.parametrize("error", [RecursionError("too deep"), KeyError("x")], ids=repr)
async def test_what_nobody_has_thought_of_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    write_model(tmp_path, "good", v1=affine())
    write_model(tmp_path, "bad", v1=affine())
    bench = Bench()
    repository = bench.repository(tmp_path, mode=ControlMode.EXPLICIT, startup_models=["good"])
    await repository.open()
    _fail_once_in(monkeypatch, step, error)
    with pytest.raises(InternalError, match=f"failed to load 'bad': unexpected {type(error).__name__}"):
        await repository.load("bad")
    _check(repository, "bad", type(error).__name__)
    assert not repository.is_every_model_ready()
    await repository.load("bad")
    assert repository.is_every_model_ready()
    await repository.close()
    assert bench.num_open == 0


async def test_memory_that_a_load_does_not_get(tmp_path: Path) -> None:
    write_model(tmp_path, "good", v1=affine())
    write_model(tmp_path, "bad", v1=affine())
    bench = Bench()

    def load(path: Path) -> None:
        if "bad" in path.parts:
            raise MemoryError

    bench.onnxruntime.on_load = load  # type: ignore[assignment]
    repository = bench.repository(tmp_path)
    await repository.open()
    _check(repository, "bad", "not the memory for its load now")
    await repository.close()


def _without_threads(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool]) -> None:
    start = threading.Thread.start

    def start_if(self: threading.Thread) -> None:
        if is_refused(self.name):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_if)


async def test_a_thread_that_a_worker_does_not_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, "good", v1=affine())
    write_model(tmp_path, "bad", "version_policy { all { } } instance_group { count: 3 }", v1=affine(), v2=affine())
    _without_threads(monkeypatch, lambda name: name == "bad-2-cpu-1")
    bench = Bench()
    repository = bench.repository(tmp_path)
    await repository.open()
    _check(repository, "bad", "no thread for more work: can't start new thread")
    assert not repository.is_every_model_ready()
    await repository.close()
    assert bench.num_open == 0


@pytest.mark.parametrize("work", ["stamp", "read_source", "VersionBuilder._measured"])
async def test_a_thread_that_a_load_does_not_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    write_model(tmp_path, "good", v1=affine())
    write_model(tmp_path, "bad", v1=affine())
    repository = Bench().repository(tmp_path, mode=ControlMode.EXPLICIT, startup_models=["good"])
    await repository.open()
    with monkeypatch.context() as patched:
        _without_threads(patched, lambda name: name == work)
        with pytest.raises(TriuneError, match="no thread for more work"):
            await repository.load("bad")
        _check(repository, "bad", "no thread for more work")
    await repository.load("bad")
    assert repository.is_ready("bad")
    await repository.close()


async def test_everything_is_freed_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, "good", "instance_group { count: 2 }", v1=affine())
    bench = Bench()
    repository = bench.repository(tmp_path)
    await repository.open()
    _without_threads(monkeypatch, lambda _: True)
    await repository.close()
    assert bench.num_open == 0


async def test_a_folder_of_too_many_files_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triune.config.stamps._MAX_ENTRIES", 3)
    write_model(tmp_path, "good", v1=affine())
    folder = write_model(tmp_path, "bad", v1=affine())
    repository = _bench().repository(tmp_path, mode=ControlMode.POLL, poll_seconds=3600)
    await repository.open()
    for number in range(9):
        (folder / f"{number}.txt").write_text("")
    for _ in range(3):
        await repository.poll()
    assert repository.is_ready("bad")
    assert caplog.text.count("holds more than 3 files and folders") == 1
    await repository.close()
    with pytest.raises(InvalidArgumentError, match="more than 3 files"):
        folder_stamps.stamp(folder)


async def test_a_model_whose_folder_is_still_looked_at_is_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "slow", v1=affine())
    begun, go_on = threading.Event(), threading.Event()
    look = folder_stamps.stamp

    def stamp_slowly(*args: object) -> object:
        begun.set()
        go_on.wait(60)
        return look(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_stamps, "stamp", stamp_slowly)
    repository = Bench().repository(tmp_path, mode=ControlMode.EXPLICIT)
    await repository.open()
    loading = asyncio.ensure_future(repository.load("slow"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    (entry,) = repository.index()
    assert (entry.state, entry.version, entry.reason) == (ModelState.LOADING, None, "")
    go_on.set()
    await loading
    (entry,) = repository.index()
    assert (entry.state, entry.version) == (READY, 1)
    await repository.close()


async def test_a_long_reason_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_model(tmp_path, "bad", f"backend: '{'x' * 50_000}'", v1=affine())
    repository = Bench().repository(tmp_path)
    await repository.open()
    (entry,) = repository.index()
    assert "x" * 1000 in entry.reason
    assert len(entry.reason) < 4200
    assert max(map(len, caplog.messages)) < 5000
    await repository.close()
