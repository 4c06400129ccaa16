import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from triune import app
from triune.cli import serving
from triune.cli.log_writer import LogWriter
from triune.repository.settings import RepositorySettings
from triune.serving.server import Server


def test_a_table_that_cannot_be_printed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> None:
        raise OSError(24, "Too many open files")

    server = Server(app.make_repository(RepositorySettings([tmp_path])))
    log = LogWriter(logging.NullHandler())
    console = Console(stderr=True)
    monkeypatch.setattr(serving, "_print_models", fail)
    serving.tell(server, app.Addresses("127.0.0.1:1", None, None), console, log)
    log.close()
    assert "models are served, but what and where cannot be printed" in caplog.text
    assert "Too many open files" in caplog.text


def test_the_table_is_made_in_the_thread_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has_returned = threading.Event()
    monkeypatch.setattr(serving, "_print_models", lambda *given: has_returned.wait())
    server = Server(app.make_repository(RepositorySettings([tmp_path])))
    log = LogWriter(logging.NullHandler())
    serving.tell(server, app.Addresses("127.0.0.1:1", None, None), Console(stderr=True), log)
    assert "127.0.0.1:1" not in capsys.readouterr().err
    has_returned.set()
    log.close()
    assert "HTTP     http://127.0.0.1:1" in capsys.readouterr().err


def test_at_its_end_libraries_clean_up_and_no_destructor_runs(tmp_path: Path) -> None:
    code = f"""
import atexit, logging, sys
from rich.console import Console
from triune import app
from triune.cli import serving
from triune.cli.log_writer import LogWriter
from triune.repository.settings import RepositorySettings
from triune.settings import Settings

class Library:
    def __del__(self):
        sys.stderr.write("a destructor ran")

async def serve(settings, on_ready):
    atexit.register(sys.stdout.write, "temporary files are removed")

app.serve = serve
library = Library()
serving.run(Settings(RepositorySettings([{str(tmp_path)!r}])), Console(stderr=True), LogWriter(logging.NullHandler()))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "temporary files are removed", "")
