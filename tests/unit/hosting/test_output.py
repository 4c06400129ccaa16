"""What a worker process writes is logged, line by line."""

import functools
import logging
import os
import sys
import time

import pytest

from triune.hosting import Limits, run_in_process
from triune.hosting.output import log_lines


def _logged(text: bytes, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    reading, writing = os.pipe()
    with caplog.at_level(logging.DEBUG, "triune.hosting.output"):
        log_lines(reading, "worker")
        os.write(writing, text)
        os.write(writing, b"END\n")
        while not any("END" in each.getMessage() for each in caplog.records):
            time.sleep(0.001)
    os.close(writing)
    return [(each.levelname, each.getMessage()) for each in caplog.records[:-1]]


def test_levels_and_lines(caplog: pytest.LogCaptureFixture) -> None:
    text = b"printed\nERROR it fails\n  Traceback\nWARNING beware\r\n\n 1%\r50%\r100%\nplain"
    assert _logged(text + b"\n", caplog) == [
        ("INFO", "worker: printed"),
        ("ERROR", "worker: it fails"),
        ("ERROR", "worker:   Traceback"),
        ("WARNING", "worker: beware"),
        ("INFO", "worker: 100%"),
        ("INFO", "worker: plain"),
    ]


def test_a_line_without_end_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    with caplog.at_level(logging.DEBUG, "triune.hosting.output"):
        log_lines(reading, "worker")
        for _ in range(8):
            os.write(writing, b"x" * (1 << 15))
        while len(caplog.records) < 2:
            time.sleep(0.001)
    os.close(writing)


def _print_much(num_bytes: int) -> None:
    logging.getLogger("x").warning("a\nb\x1b")
    print("y" * num_bytes, file=sys.stderr)


def test_a_worker_that_writes_more_than_a_pipe_holds_is_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_in_process(functools.partial(_print_much, 1 << 20), "the worker", Limits(load_seconds=60))
    while sum(each.getMessage().count("y") for each in caplog.records) < 1 << 20:
        time.sleep(0.001)
    record = next(each for each in caplog.records if each.levelname == "WARNING")
    assert record.getMessage() == "the worker: a\\nb\\x1b"
