"""Processes that parse large bodies leave nothing behind."""

import os
import signal
from pathlib import Path

import pytest

from triune.frontends.bodies.parser_processes import ParserProcesses


def test_nothing_is_left_of_a_process_that_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parsers = ParserProcesses(1)
    assert parsers.call(len, b"four") == 4
    assert list(tmp_path.iterdir()), "the process has a temporary folder"
    parsers.close()
    assert list(tmp_path.iterdir()) == []


def process_id(body: memoryview) -> int:
    del body
    return os.getpid()


def test_a_process_that_was_killed_while_it_waited_costs_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parsers = ParserProcesses(1)
    first = parsers.call(process_id, b"")
    assert parsers.call(process_id, b"") == first
    os.kill(first, signal.SIGKILL)
    while Path(f"/proc/{first}").exists():
        os.sched_yield()
    assert parsers.call(process_id, b"") != first
    assert len(list(tmp_path.iterdir())) == 1, "nothing is left of the first one"
    parsers.close()
