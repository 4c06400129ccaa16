"""Which unit is chosen for which size, from times that were measured."""

import json
import math
from pathlib import Path

import pytest

from triune.api.direct.crossovers import (
    BATCHED,
    ROW,
    SIZES,
    SQUARE,
    Choice,
    Times,
    choices,
    load_times,
    measured_units,
    save_times,
    shape_of,
    work_of,
)
from triune.core.units import Unit


def times(cpu: float = 1e-11, amx: float = 2e-12, start: float = 4e-5) -> Times:
    """The cpu starts at once, amx after `start` seconds, and then each needs so long for a multiplication."""
    return {
        shape: {
            size: {Unit.CPU: cpu * work_of(shape, size), Unit.AMX: start + amx * work_of(shape, size)} for size in sizes
        }
        for shape, sizes in SIZES.items()
    }


def test_the_limit_is_where_both_take_equally_long() -> None:
    equal = 4e-5 / (1e-11 - 2e-12)
    for shape, choice in choices(times(), [Unit.CPU, Unit.AMX]).items():
        assert choice.units == (Unit.CPU, Unit.AMX), shape
        (limit,) = choice.limits
        # Between two sizes the times are taken for powers of the work, so the limit is near.
        assert 0.6 * equal < limit < 1.6 * equal
        # At each measured size the best one is chosen.
        for size, seconds in times()[shape].items():
            assert choice(work_of(shape, size)) is min(seconds, key=seconds.__getitem__)


def test_units_that_do_not_compute_in_the_precision_are_not_chosen() -> None:
    for choice in choices(times(), [Unit.CPU]).values():
        assert choice == Choice((), (Unit.CPU,))
    assert choices(times(cpu=1e-9, start=0), [Unit.CPU, Unit.AMX])[SQUARE] == Choice((), (Unit.AMX,))


def test_a_unit_may_be_the_best_twice() -> None:
    by_size = {size: {Unit.CPU: 1.0, Unit.AMX: 0.5 if 64 <= size <= 256 else 2.0} for size in SIZES[SQUARE]}
    choice = choices({SQUARE: by_size}, [Unit.CPU, Unit.AMX])[SQUARE]
    assert choice.units == (Unit.CPU, Unit.AMX, Unit.CPU)
    assert [choice(size**3) for size in (16, 64, 128, 256, 2048, 8192)] == [
        Unit.CPU,
        *[Unit.AMX] * 3,
        *[Unit.CPU] * 2,
    ]


@pytest.mark.parametrize(
    # Microseconds of two units at 1024 and 2048, from where on the second one is the best (0: nowhere), and sizes.
    ("one", "other", "sizes", "best"),
    [
        # Measured on 16 cores beside an H200, in fp32: at 6144 520 and 241 ms, at 3072 46 and 65 ms.
        ((1882, 13882), (6711, 22554), (2048, 3072, 4096, 6144, 8192), (0, 0, 1, 1, 1)),
        # The same in bf16, by AMX and the GPU: at 4096 47 and 51 ms, at 6144 191 and 120 ms.
        ((1220, 7206), (3165, 11586), (2048, 3072, 6144, 8192), (0, 0, 1, 1)),
        # The slower one loses more, or both grow alike, or it catches up beyond all that is predicted.
        ((100, 800), (200, 1700), (4096, 8192), (0, 0)),
        ((100, 800), (200, 1600), (4096, 8192), (0, 0)),
        ((100, 810), (5000, 40000), (8192,), (0,)),
    ],
)
def test_beyond_the_measured_sizes_times_grow_as_before(
    one: tuple[int, int], other: tuple[int, int], sizes: tuple[int, ...], best: tuple[int, ...]
) -> None:
    units = (Unit.CPU, Unit.GPU)
    by_size = {size: dict(zip(units, pair, strict=True)) for size, *pair in zip((1024, 2048), one, other, strict=True)}
    choice = choices({SQUARE: by_size}, units)[SQUARE]
    assert [choice(work_of(SQUARE, size)) for size in sizes] == [units[each] for each in best]


@pytest.mark.parametrize(
    ("rows", "batch", "shape"), [(1, 1, ROW), (8, 1, ROW), (9, 1, SQUARE), (4096, 1, SQUARE), (1, 2, BATCHED)]
)
def test_kinds_of_products(rows: int, batch: int, shape: str) -> None:
    assert shape_of(rows, batch) == shape


def test_times_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "direct" / "here.json"
    assert load_times(path) == {}
    save_times(path, {"fp32": times()})
    assert load_times(path) == {"fp32": times()}
    assert measured_units(times()) == {Unit.CPU, Unit.AMX}
    assert [each.name for each in path.parent.iterdir()] == ["here.json"]


@pytest.mark.parametrize("change", ["text", "kinds", "number", "sizes", "units", "list"])
def test_broken_times_are_told_of(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "here.json"
    save_times(path, {"fp32": times()})
    content = json.loads(path.read_text())
    match change:
        case "text":
            path.write_text("{")
        case "list":
            path.write_text("[]")
        case "kinds":
            del content["fp32"][ROW]
        case "number":
            content["fp32"][ROW]["16"]["cpu"] = -math.inf
        case "sizes":
            del content["fp32"][ROW]["16"]
        case _:
            del content["fp32"][ROW]["16"]["cpu"]
    if change not in ("text", "list"):
        path.write_text(json.dumps(content))
    assert load_times(path) == {}
    assert f"{path}" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "direct").write_text("a file")
    save_times(tmp_path / "direct" / "here.json", {"fp32": times()})
    assert "each program measures products again" in caplog.text
