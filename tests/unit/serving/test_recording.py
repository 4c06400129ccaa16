"""Recordings: which requests arrive when, and nothing else."""

import logging
from pathlib import Path

import numpy as np
import pytest

from support.repositories import Bench, affine, write_model
from triune.core.clock import VirtualClock
from triune.core.errors import AlreadyExistsError, InvalidArgumentError
from triune.core.requests import InferenceRequest, Parameter
from triune.core.servable import Call
from triune.core.units import Unit
from triune.serving import recording
from triune.serving.recording import Recording
from triune.serving.server import Server
from triune.simulation.trace import Arrival, read_trace

MS = 1_000_000


def call(num_rows: int = 1, priority: int = 0, **parameters: Parameter) -> Call:
    x = np.full((num_rows, 1), 1234567.0, np.float32)
    return Call(
        InferenceRequest("m", {"x": x}, id="secret", parameters=parameters, priority=priority), {"x": x}, num_rows
    )


def test_time_model_rows_unit_and_priority_are_recorded_and_no_content(tmp_path: Path) -> None:
    clock = VirtualClock()
    clock.advance(77 * MS)
    held = Recording(tmp_path / "trace", clock)
    held.record(call(3))
    clock.advance(5 * MS)
    held.record(call(1, 2, triune_unit="gpu", other="secret"))
    held.record(call(triune_unit=7))
    held.close()
    assert read_trace(tmp_path / "trace") == [
        Arrival(0, "m", 3), Arrival(5 * MS, "m", 1, Unit.GPU, 2), Arrival(5 * MS, "m", 1),
    ]  # fmt: skip
    text = (tmp_path / "trace").read_text()
    assert "secret" not in text
    assert "1234567" not in text


def test_a_recording_ends_at_its_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = Recording(tmp_path / "trace", VirtualClock(), most=2)
    for _ in range(5):
        held.record(call())
    held.close()
    assert len(read_trace(tmp_path / "trace")) == 2
    assert [each.message for each in caplog.records] == [
        f"the recording of requests to {tmp_path}/trace has ended: it has as many requests as a trace may have"
    ]


def test_a_slow_disk_ends_it_and_what_is_written_is_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "MOST_WAITING", 0)
    held = Recording(tmp_path / "trace", VirtualClock())
    held.record(call())
    monkeypatch.setattr(recording, "MOST_WAITING", 10)
    held.record(call())
    held.close()
    assert (tmp_path / "trace").read_text() == ""
    assert "the disk is too slow" in caplog.text


def test_a_full_disk_ends_it(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(arrival: Arrival) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "line_of", full)
    held = Recording(tmp_path / "trace", VirtualClock())
    with caplog.at_level(logging.WARNING):
        held.record(call())
        held.close()
    held.record(call())
    assert "it cannot be written: No space left on device" in caplog.text


@pytest.mark.parametrize("num_bytes", [1 << 20, (1 << 20) + 7])
def test_what_is_on_a_full_disk_can_be_simulated(
    num_bytes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on files stands for the disk's: it, too, lets a part of the last line be written."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    held = Recording(tmp_path / "trace", VirtualClock())
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        for number in range(40_000):
            held.record(call(num_rows=1 + number))
        held.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "it cannot be written: File too large" in caplog.text
    found = read_trace(tmp_path / "trace")
    assert [each.num_rows for each in found] == list(range(1, 1 + len(found)))
    assert num_bytes - 100 < (tmp_path / "trace").stat().st_size <= num_bytes


def test_no_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="replaces no file; name another"):
        Recording(tmp_path / "trace", VirtualClock())
    assert (tmp_path / "trace").read_text() == "mine"
    with pytest.raises(InvalidArgumentError, match="cannot be written to .*No such file"):
        Recording(tmp_path / "none" / "trace", VirtualClock())


async def test_a_server_records_what_a_model_takes(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "m", v1=affine())
    repository = Bench().repository(tmp_path / "models")
    await repository.open()
    held = Recording(tmp_path / "trace", VirtualClock())
    server = Server(repository, recording=held)
    good, bad = np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)
    await server.infer(InferenceRequest("m", {"x": good}))
    with pytest.raises(InvalidArgumentError):
        server.infer(InferenceRequest("m", {"x": bad}))
    async for _ in server.stream(InferenceRequest("m", {"x": good[:1]}, priority=1)):
        pass
    await repository.close()
    held.close()
    assert [(each.model, each.num_rows, each.priority) for each in read_trace(tmp_path / "trace")] == [
        ("m", 2, 0), ("m", 1, 1),
    ]  # fmt: skip
