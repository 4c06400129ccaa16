import logging
import re
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


def test_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--log-file"):
        set_up_logs(LogOptions(file=tmp_path / "none" / "log"), Console(stderr=True))
