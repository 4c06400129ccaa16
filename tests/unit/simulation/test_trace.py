"""Traces: what is written is read, and what is broken is refused with its line."""

from pathlib import Path

import pytest

from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.units import Unit
from triune.simulation import trace
from triune.simulation.trace import Arrival, line_of, read_trace

GOOD = '{"at": 1.5, "model": "m"}\n'


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "trace.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    arrivals = [Arrival(0, "m"), Arrival(12_345_678, "µ\n", 7, Unit.GPU, 2), Arrival(12_345_678, "m", 1, Unit.ANE)]
    assert read_trace(written(tmp_path, "".join(map(line_of, arrivals)))) == arrivals


def test_what_a_line_leaves_out_is_one_row_for_any_unit(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, GOOD)) == [Arrival(1_500_000_000, "m", 1, None, 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD[:-6], "no JSON .* if the file was cut off there, remove the line"),
        ("[" * 3000, "no JSON"),
        ('{"at": 1, "at": 2, "model": "m"}', 'the field "at" is given twice'),
        (b"\xff\xfe", "no JSON"),
        ("\n", "no JSON"),
        ("3", "no JSON object; a line has at, model, rows, unit, priority"),
        ('{"at": 2, "model": "m", "input": [1]}', "'input' is unknown; a line has at, model, rows"),
        ('{"model": "m"}', "'at' is missing"),
        ('{"at": 2}', "'model' is missing"),
        ('{"at": -1, "model": "m"}', r"'at' is -1; it must be a number of seconds from 0"),
        ('{"at": NaN, "model": "m"}', r"'at' is NaN"),
        ('{"at": true, "model": "m"}', r"'at' is true"),
        ('{"at": 1e999, "model": "m"}', r"'at' is Infinity"),
        ('{"at": 2, "model": ""}', "'model' is \"\"; it must be the name"),
        ('{"at": 2, "model": 3}', "'model' is 3"),
        ('{"at": 2, "model": "m", "rows": 0}', "'rows' is 0; it must be a whole number from 1"),
        ('{"at": 2, "model": "m", "rows": 1.5}', r"'rows' is 1\.5"),
        ('{"at": 2, "model": "m", "unit": "npu"}', "'unit' is \"npu\"; it must be one of cpu, amx, gpu, ane"),
        ('{"at": 2, "model": "m", "unit": ["gpu"]}', "'unit' is"),
        ('{"at": 2, "model": "m", "priority": -1}', "'priority' is -1"),
        ('{"at": 1.4, "model": "m"}', r"it arrives at 1\.4 s, before the line above at 1\.5 s; sort"),
        ('{"at": 2, "model": "' + "m" * 5000 + '"}', "longer than 4096 bytes"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    content = GOOD.encode() + (line if isinstance(line, bytes) else line.encode())
    with pytest.raises(InvalidArgumentError, match=f"trace .*trace.jsonl, line 2: .*{message}"):
        read_trace(written(tmp_path, content))


def test_a_trace_without_requests(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"trace\.jsonl is empty"):
        read_trace(written(tmp_path, ""))


def test_no_trace(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no trace .*none; `triune serve --record FILE` makes one"):
        read_trace(tmp_path / "none")
    with pytest.raises(InvalidArgumentError, match="cannot be read: .*folder"):
        read_trace(tmp_path)


def test_a_trace_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_ARRIVALS", 3)
    assert len(read_trace(written(tmp_path, GOOD * 3))) == 3
    with pytest.raises(InvalidArgumentError, match="more than 3 lines"):
        read_trace(written(tmp_path, GOOD * 4))
