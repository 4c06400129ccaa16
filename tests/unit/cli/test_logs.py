import logging
import os
import re
import socket
from pathlib import Path

import pytest
from rich.console import Console

from triune.cli.logs import LogFormat, LogOptions, set_up_logs
from triune.core.errors import InvalidArgumentError


def logged(options: LogOptions, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    set_up_logs(options, Console(stderr=True))
    logging.getLogger("grpc._cython.cygrpc").debug("of no use")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.log(level, "%s", logging.getLevelName(level).lower())
    for handler in root.handlers:
        handler.close()
    assert options.file is not None
    return options.file.read_text().splitlines()


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (LogFormat.TRIUNE, r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO info"),
        (LogFormat.DEFAULT, r"I\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ test_logs\.py:\d+\] info"),
        (LogFormat.ISO8601, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ I \d+ test_logs\.py:\d+\] info"),
    ],
)
def test_log_formats_and_file(form: LogFormat, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = logged(LogOptions(format=form, file=tmp_path / "log"), monkeypatch)
    assert re.fullmatch(line, lines[0])
    assert [each.split(" ")[-1] for each in lines] == ["info", "warning", "error"]


def test_levels_can_be_left_out_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = logged(LogOptions(verbose=1, has_info=False, has_errors=False, file=tmp_path / "log"), monkeypatch)
    assert [each.split(" ")[-1] for each in lines] == ["debug", "warning"]


@pytest.mark.parametrize("form", [LogFormat.TRIUNE, LogFormat.DEFAULT])
@pytest.mark.parametrize("kind", ["no folder", "folder", "socket", "protected"])
def test_log_file_that_cannot_be_written(
    kind: str, form: LogFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The names of sockets are short.
    monkeypatch.chdir(tmp_path)
    file = Path("none/log" if kind == "no folder" else "log")
    if kind == "folder":
        file.mkdir()
    elif kind == "protected":
        if os.geteuid() == 0:
            pytest.skip("root may write anything")
        file.touch(mode=0o400)
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "socket":
            listening.bind(str(file))
        with pytest.raises(InvalidArgumentError, match=rf"--log-file '{file}' cannot be written: "):
            set_up_logs(LogOptions(format=form, file=file), Console(stderr=True))
    assert not file.is_file() or kind == "protected"
