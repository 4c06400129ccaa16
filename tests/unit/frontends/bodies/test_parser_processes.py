"""Processes that parse large bodies leave nothing behind."""

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
