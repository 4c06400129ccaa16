import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

from triune import app
from triune.cli import serve
from triune.cli.log_writer import LogWriter
from triune.cli.logs import LogFormat, LogOptions, set_up_logs
from triune.cli.serve import read_backend_config, tell
from triune.core.errors import InvalidArgumentError
from triune.repository.settings import RepositorySettings
from triune.serving.server import Server


def test_default_max_batch_size_for_one_backend_and_for_all() -> None:
    given = ["*,default-max-batch-size=8", "onnxruntime,default-max-batch-size=0", "onnxruntime,enable-global=1", "a=b"]
    assert read_backend_config(given) == ({"": 8, "onnxruntime": 0}, ["onnxruntime,enable-global=1", "a=b"])
    assert read_backend_config(["default-max-batch-size=16"]) == ({"": 16}, [])


@pytest.mark.parametrize(
    "given", ["x", ",a=b", "x,=1", "x,a=", "default-max-batch-size=-1", "x,default-max-batch-size=a"]
)
def test_backend_config_of_another_form_is_refused(given: str) -> None:
    with pytest.raises(InvalidArgumentError, match="backend-config"):
        read_backend_config([given])


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
        (LogFormat.DEFAULT, r"I\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ test_serve\.py:\d+\] info"),
        (LogFormat.ISO8601, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ I \d+ test_serve\.py:\d+\] info"),
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


def test_a_table_that_cannot_be_printed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> None:
        raise OSError(24, "Too many open files")

    server = Server(app.make_repository(RepositorySettings([tmp_path])))
    log = LogWriter(logging.NullHandler())
    console = Console(stderr=True)
    monkeypatch.setattr(serve, "_print_models", fail)
    tell(server, app.Addresses("127.0.0.1:1", None, None), console, log)
    log.close()
    assert "models are served, but what and where cannot be printed" in caplog.text
    assert "Too many open files" in caplog.text
