"""What was never loaded here is loaded in a process of its own first."""

import functools
import importlib.metadata
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.graphs import model_of
from support.repositories import affine, ending_itself, turning, write_model
from triune.backends.attempt import Attempt
from triune.backends.tensor.backend import TensorBackend
from triune.config import load_key
from triune.config.configure import Source, read_source
from triune.config.stamps import stamp
from triune.core.clock import MonotonicClock
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError, UnavailableError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hosting import WorkerProcess
from triune.repository import trials as room
from triune.repository.trials import Trials
from triune.runtimes.machine import Machine
from triune.runtimes.onnxruntime import OnnxRuntime
from triune.runtimes.registry import ROWS, Row

MACHINE = Machine({"onnxruntime": OnnxRuntime()}, [UnitStatus(Unit.CPU, Presence.PRESENT, "a CPU")], 1)
OWN_PROCESS = 'parameters { key: "own_process" value { string_value: "true" } }'


def source_of(path: Path, model: bytes, config: str | None = None) -> Source:
    write_model(path, "m", config, v1=model)
    return read_source("m", path / "m", stamp(path / "m"))


class Counted:
    """Processes that are started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._start = WorkerProcess
        monkeypatch.setattr(room, "WorkerProcess", self)

    def __call__(self, *args: object) -> WorkerProcess:
        self.count += 1
        self.last = self._start(*args)  # type: ignore[arg-type]
        return self.last


def test_a_model_that_ends_the_process_is_told_of(tmp_path: Path) -> None:
    trials = Trials(MACHINE, tmp_path / "loaded")
    source = source_of(tmp_path, ending_itself())
    with pytest.raises(InternalError, match="version 1 is not loaded.*was killed by SIGABRT; correct the file"):
        TensorBackend(MACHINE, MonotonicClock(), try_first=trials.require).build(source, 1, None, Attempt())
    assert not (tmp_path / "loaded").exists()
    trials.close()


def test_not_even_the_signature_is_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX's own library infers shapes where a file leaves them out, and may end what it is in."""

    def refuse(source: Source, version: int, attempt: Attempt) -> None:
        raise InternalError("it would end the server")

    monkeypatch.setattr(OnnxRuntime, "inspect", lambda *_: pytest.fail("it is inspected in the server"))
    with pytest.raises(InternalError, match="it would end the server"):
        TensorBackend(MACHINE, MonotonicClock(), try_first=refuse).build(
            source_of(tmp_path, affine()), 1, None, Attempt()
        )


def test_what_went_well_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Counted(monkeypatch)
    for _ in range(2):
        trials = Trials(MACHINE, tmp_path / "loaded")
        TensorBackend(MACHINE, MonotonicClock(), try_first=trials.require).build(
            source_of(tmp_path, affine()), 1, None, Attempt()
        ).close()
        trials.close()
    assert processes.count == 1
    assert len(list((tmp_path / "loaded").iterdir())) == 1


def test_other_content_and_other_options_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Counted(monkeypatch)
    trials = Trials(MACHINE, tmp_path / "loaded")
    level = "optimization { graph { level: 2 } }"
    sources = [
        source_of(tmp_path, affine()),
        source_of(tmp_path, affine(3.0)),
        source_of(tmp_path, affine(3.0), level),
        source_of(tmp_path, affine(3.0), f"{level} version_policy {{ all {{}} }}"),
    ]
    counts: list[int] = []
    for source in sources:
        trials.require(source, 1, Attempt())
        counts.append(len(list((tmp_path / "loaded").iterdir())))
    assert counts == [1, 2, 3, 3]
    # What one process has loaded well, the next model may use.
    assert processes.count == 1
    trials.close()


def test_another_version_of_a_runtimes_library_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"one-more": "1.0"}
    version_of = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed.get(name) or version_of(name))
    row = replace(ROWS[0], name="one-more", distributions=("one-more",))
    monkeypatch.setattr(load_key, "ROWS", [*ROWS, row])
    source = source_of(tmp_path, affine())
    counts: list[int] = []
    for number in ("1.0", "1.0", "1.1"):
        installed["one-more"] = number
        trials = Trials(MACHINE, tmp_path / "loaded")
        trials.require(source, 1, Attempt())
        trials.close()
        counts.append(len(list((tmp_path / "loaded").iterdir())))
    assert counts == [1, 1, 2]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_registry_names_the_distribution_of_each_library(row: Row) -> None:
    owners = importlib.metadata.packages_distributions().get(row.library)
    if owners is None:
        pytest.skip(f"{row.library} is not installed")
    assert set(owners) <= set(row.distributions)


def test_so_many_are_remembered_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MAX_REMEMBERED", 2)
    trials = Trials(MACHINE, tmp_path / "loaded")
    sources = [functools.partial(source_of, tmp_path, affine(scale)) for scale in (1.0, 2.0, 3.0)]
    for make in (sources[0], sources[1], sources[0], sources[2]):
        trials.require(make(), 1, Attempt())
        time.sleep(0.01)
    processes = Counted(monkeypatch)
    trials.require(sources[0](), 1, Attempt())
    trials.require(sources[2](), 1, Attempt())
    trials.close()
    assert processes.count == 0
    trials = Trials(MACHINE, tmp_path / "loaded")
    trials.require(sources[1](), 1, Attempt())
    assert processes.count == 1
    trials.close()


def test_the_reason_of_a_refusal_is_the_models_own(tmp_path: Path) -> None:
    trials = Trials(MACHINE, tmp_path / "loaded")
    with pytest.raises(InvalidArgumentError, match="is not an ONNX model"):
        trials.require(source_of(tmp_path, b"no model"), 1, Attempt())
    # And the process goes on.
    trials.require(source_of(tmp_path, affine()), 1, Attempt())
    trials.close()


def test_a_model_whose_samples_would_be_too_large_is_loaded_without_one(tmp_path: Path) -> None:
    # No size that is tried fits the weights, and the largest ones take 17 GB.
    text = "g (float[a,b,c,d] x) => (float[a,b,c,e] y) <float[3,1] w = {1, 1, 1}> { y = MatMul(x, w) }"
    trials = Trials(MACHINE, tmp_path / "loaded")
    trials.require(source_of(tmp_path, model_of(text).SerializeToString()), 1, Attempt())
    trials.close()


def test_a_load_that_is_given_up_ends_its_process(tmp_path: Path) -> None:
    trials, attempt = Trials(MACHINE, tmp_path / "loaded"), Attempt()
    source = source_of(
        tmp_path,
        turning(2**62),
        'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {'
        " data_type: TYPE_FP32 dims: 4 zero_data: true } } }",
    )
    timer = threading.Timer(3.0, attempt.give_up)
    timer.start()
    with pytest.raises(UnavailableError, match="given up"):
        trials.require(source, 1, attempt)
    timer.join()
    trials.close()


def test_giving_up_a_load_leaves_the_process_alone_that_it_has_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a load is long, and its process at work for another model by then."""
    processes = Counted(monkeypatch)
    trials, attempt = Trials(MACHINE, tmp_path / "loaded"), Attempt()
    trials.require(source_of(tmp_path, affine()), 1, attempt)
    attempt.give_up()
    trials.require(source_of(tmp_path, affine(3.0)), 1, Attempt())
    trials.close()
    assert processes.count == 1


def test_a_process_that_was_ended_for_others_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Counted(monkeypatch)
    trials = Trials(MACHINE, tmp_path / "loaded")
    trials.require(source_of(tmp_path, affine()), 1, Attempt())
    processes.last.interrupt()
    trials.require(source_of(tmp_path, affine(3.0)), 1, Attempt())
    assert processes.count == 2
    # A model that does end it ends a fresh one, too, and is told of.
    with pytest.raises(InternalError, match="was killed by SIGABRT; correct the file"):
        trials.require(source_of(tmp_path, ending_itself()), 1, Attempt())
    assert processes.count == 3
    trials.close()


def test_no_process_serves_two_loads_at_once(tmp_path: Path) -> None:
    """Of loads that are given up at any moment, none costs another: what loads is told only of its own end."""
    trials = Trials(MACHINE, tmp_path / "loaded")
    attempts = [Attempt() for _ in range(8)]
    sources = [source_of(tmp_path / f"{index}", affine(2.0 + index)) for index in range(16)]
    told: list[TriuneError] = []

    def load(attempt: Attempt, source: Source) -> None:
        try:
            trials.require(source, 1, attempt)
        except UnavailableError:
            assert attempt.is_given_up
        except TriuneError as error:
            told.append(error)

    def turns(index: int) -> None:
        load(attempts[index], sources[index])
        load(Attempt(), sources[8 + index])

    threads = [threading.Thread(target=turns, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for attempt in attempts:
        time.sleep(0.2)
        attempt.give_up()
    for thread in threads:
        thread.join()
    trials.close()
    assert not told


def test_what_runs_in_a_process_of_its_own_is_not_run(tmp_path: Path) -> None:
    trials = Trials(MACHINE, tmp_path / "loaded")
    trials.require(source_of(tmp_path, ending_itself(), OWN_PROCESS), 1, Attempt())
    trials.close()


def test_made_up_inputs_may_end_a_process_of_its_own(tmp_path: Path) -> None:
    """Inverses of what is not square are of no account: requests need not ask for them."""
    trials = Trials(MACHINE, tmp_path / "loaded")
    model = model_of(
        """g (float[n,m] x) => (float[n,k] y) <int64[2] wide = {1, 60}> {
        z = Tile(x, wide) y = com.microsoft.Inverse(z) }""",
        imports=', "com.microsoft" : 1',
    )
    trials.require(source_of(tmp_path, model.SerializeToString()), 1, Attempt())
    assert len(list((tmp_path / "loaded").iterdir())) == 1
    trials.close()


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "loaded").write_text("a file")
    trials = Trials(MACHINE, tmp_path / "loaded")
    trials.require(source_of(tmp_path, affine()), 1, Attempt())
    assert "each start loads every model twice: set TRIUNE_CACHE" in caplog.text
    trials.close()


TILED = model_of("""g (float[1] x) => (float[1] y) <float[1] w = {1}, int64[1] times = {400000000}> {
    z = Tile(w, times) s = ReduceSum(z) y = Add(x, s) }""").SerializeToString()
"""A run takes 1.6 GB."""


def test_a_first_load_has_a_memory_limit(tmp_path: Path) -> None:
    trials = Trials(replace(MACHINE, load_bytes=700 << 20), tmp_path / "loaded")
    with pytest.raises(InternalError, match=f"took more than {700 << 20} bytes.*allow it more by --model-memory-bytes"):
        trials.require(source_of(tmp_path, TILED), 1, Attempt())
    # What honest models take is far below.
    trials.require(source_of(tmp_path, affine(3.0)), 1, Attempt())
    trials.close()


def test_a_load_in_a_process_of_its_own_has_a_memory_limit(tmp_path: Path) -> None:
    source = source_of(tmp_path, affine(), OWN_PROCESS)
    with pytest.raises(InternalError, match=f"took more than {1 << 20} bytes.*allow it more by --model-memory-bytes"):
        TensorBackend(replace(MACHINE, load_bytes=1 << 20), MonotonicClock()).build(source, 1, None, Attempt())
    TensorBackend(MACHINE, MonotonicClock()).build(source, 1, None, Attempt()).close()
