"""A log that nobody reads holds nobody up; names in it forge nothing."""

import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from triune.cli.log_writer import LogWriter
from triune.cli.logs import LogFormat, LogOptions, set_up_logs
from triune.core.errors import InvalidArgumentError

PAGE = 1 << 16


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.Logger("log")
    yield logger
    for handler in logger.handlers:
        handler.close()


def _to(stream: io.TextIOBase) -> logging.Handler:
    return logging.StreamHandler(stream)


def test_lines_are_written_in_order(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    writer = LogWriter(_to(stream))
    log.addHandler(writer)
    for number in range(1000):
        log.info("line %d", number)
    writer.say(lambda: "said\n")
    writer.flush()
    assert stream.getvalue() == "".join(f"line {number}\n" for number in range(1000))
    assert capsys.readouterr().err == "said\n"


def test_a_full_pipe_holds_nobody_up_and_what_is_lost_is_counted(log: logging.Logger) -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    writer = LogWriter(_to(stream), max_waiting_bytes=PAGE, flush_seconds=0.01)
    log.addHandler(writer)
    num_lines = 2000
    for number in range(num_lines):
        log.info("line %d %s", number, "x" * 1000)
    # Neither does who waits for it at the end.
    writer.flush()
    lines: list[str] = []

    def read() -> None:
        with os.fdopen(reading) as pipe:
            lines.extend(pipe)

    reader = threading.Thread(target=read)
    reader.start()
    writer._flush_seconds = 30
    writer.flush()
    log.info("the last")
    writer.flush()
    stream.close()
    reader.join()
    assert lines.pop() == "the last\n"
    lost = [line for line in lines if "are lost here" in line]
    kept = [int(line.split()[1]) for line in lines if line not in lost]
    assert lost
    assert sum(int(line.split()[0]) for line in lost) == num_lines - len(kept)
    assert kept == sorted(set(kept))
    # Each is told of where it is missing.
    first = lines.index(lost[0])
    assert kept[:first] == list(range(first))


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1)], ids=repr)
def test_a_reader_that_has_gone_is_no_matter(log: logging.Logger, error: BaseException) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # As rich does, which ends the program where a pipe is broken.
            raise error

    writer = LogWriter(Broken())
    log.addHandler(writer)
    for _ in range(3):
        log.info("line")
        writer.flush()
        assert not writer._waiting


def test_a_message_that_cannot_be_made_is_told_of(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.addHandler(LogWriter(_to(io.StringIO())))
    log.info("%d", "no number")
    assert "Logging error" in capsys.readouterr().err


EVIL = "m\n2026-11-30 00:00:00,000 ERROR forged\x1b[2J\udcff"


@pytest.mark.parametrize("form", LogFormat)
def test_names_forge_no_line_and_command_no_terminal(
    form: LogFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    writer = set_up_logs(LogOptions(format=form, file=tmp_path / "log"), Console(stderr=True))
    logging.info("model '%s' is READY", EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.exception("model '%s' failed", EVIL)
    writer.close()
    text = (tmp_path / "log").read_text()
    assert "\x1b" not in text
    shown = r"m\n2026-11-30 00:00:00,000 ERROR forged\x1b[2J\xff"
    lines = text.splitlines()
    assert lines[0].endswith(f"model '{shown}' is READY")
    assert lines[1].endswith(f"model '{shown}' failed")
    # A traceback has lines of its own, which none takes for another record's.
    assert len(lines) > 3
    assert all(line.startswith("  ") for line in lines[2:])


def test_a_terminal_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    writer = set_up_logs(LogOptions(), Console(file=stream, force_terminal=True, color_system=None, width=200))
    logging.info("model '%s' is READY", EVIL)
    writer.close()
    assert len(stream.getvalue().splitlines()) == 1
    assert r"\n2026" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()


def test_a_log_file_that_is_a_pipe_has_somebody_who_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    os.mkfifo(tmp_path / "pipe")
    options = LogOptions(file=tmp_path / "pipe")
    with pytest.raises(InvalidArgumentError, match=r"--log-file '.*/pipe' cannot be written: it is a pipe that nobody"):
        set_up_logs(options, Console(stderr=True))
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    with os.fdopen(reading) as pipe:
        writer = set_up_logs(options, Console(stderr=True))
        logging.info("line")
        assert pipe.readline().endswith("INFO line\n")
        writer.close()
