"""Times of whole models that were measured here: kept, found again, and what plans make of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from triune.core.errors import InvalidArgumentError
from triune.core.units import Unit
from triune.hardware.chips import chip
from triune.planning.as_json import as_json
from triune.planning.candidates import Request
from triune.planning.constants import constants
from triune.planning.measured import SERVED, MeasuredTime, dated, keep_times, load_times, model_key, of_shapes
from triune.planning.op import Op
from triune.planning.plan import Goal, Plan
from triune.planning.planner import plan
from triune.planning.published import vision
from triune.planning.units import target_of

SHAPES = {"x": (1, 3, 224, 224)}


def time(unit: Unit, ms: float, rows: int = 1) -> MeasuredTime:
    return MeasuredTime(unit, {"x": (rows, 3, 224, 224)}, ms, 100)


def test_the_fastest_of_a_tuning_is_kept_and_replaces_older_ones(tmp_path: Path) -> None:
    keep_times(tmp_path, "k", dated([time(Unit.CPU, 5), time(Unit.AMX, 2), time(Unit.CPU, 9, rows=4)], "old"))
    keep_times(tmp_path, "k", dated([time(Unit.CPU, 8), time(Unit.CPU, 7)], "new"))
    found, reason = load_times(tmp_path, "k")
    assert not reason
    assert {(each.unit, each.shapes["x"][0], each.ms, each.source) for each in found} == {
        (Unit.CPU, 1, 7, "new"),
        (Unit.CPU, 4, 9, "old"),
        (Unit.AMX, 1, 2, "old"),
    }
    assert load_times(tmp_path, "other") == ((), "")


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}1", "[1]", '[{"unit": "tpu"}]', "[" * 10_000]
    + [
        json.dumps([{"unit": "cpu", "shapes": {"x": [1]}, "ms": ms, "num_calls": 1, "source": ""}])
        for ms in (0, -1, "1", float("inf"), float("nan"), None)
    ],
)
def test_a_broken_file_gives_no_times_and_the_reason(tmp_path: Path, content: str) -> None:
    (tmp_path / "k.json").write_text(content)
    found, reason = load_times(tmp_path, "k")
    assert not found
    assert "is broken" in reason
    keep_times(tmp_path, "k", [time(Unit.CPU, 5)])
    assert load_times(tmp_path, "k") == ([time(Unit.CPU, 5)], "")


def served(ms: float, num_calls: int) -> list[MeasuredTime]:
    return dated([MeasuredTime(Unit.CPU, SHAPES, ms, num_calls)], f"{SERVED}, 2026-12-03")


def kept(folder: Path) -> tuple[float, int]:
    (found,) = load_times(folder, "k")[0]
    return found.ms, found.num_calls


def test_a_server_corrects_its_own_times_and_leaves_shorter_ones_of_a_tuning(tmp_path: Path) -> None:
    keep_times(tmp_path, "k", served(9, 20))
    keep_times(tmp_path, "k", served(11, 30))
    assert kept(tmp_path) == (11, 30)
    keep_times(tmp_path, "k", served(4, 5))
    assert kept(tmp_path) == (11, 30), "few calls say less than many"
    keep_times(tmp_path, "k", dated([time(Unit.CPU, 8)], "triune tune, 2026-12-03"))
    keep_times(tmp_path, "k", served(10, 1000))
    assert kept(tmp_path) == (8, 100)
    keep_times(tmp_path, "k", served(7, 20))
    assert kept(tmp_path) == (7, 20)


def test_joules_are_kept_and_those_of_older_files_are_unknown(tmp_path: Path) -> None:
    metered = replace(time(Unit.CPU, 5), joules=0.25)
    keep_times(tmp_path, "k", [metered, time(Unit.AMX, 2)])
    assert load_times(tmp_path, "k") == ([metered, time(Unit.AMX, 2)], "")
    content = [{"unit": "cpu", "shapes": {"x": [1]}, "ms": 5, "num_calls": 1, "source": ""}]
    (tmp_path / "k.json").write_text(json.dumps(content))
    assert load_times(tmp_path, "k")[0][0].joules is None
    (tmp_path / "k.json").write_text(json.dumps([content[0] | {"joules": -1}]))
    assert "an energy is -1" in load_times(tmp_path, "k")[1]


def test_the_number_of_times_of_a_model_is_limited(tmp_path: Path) -> None:
    keep_times(tmp_path, "k", [time(Unit.CPU, 5, rows) for rows in range(1, 400)])
    found = load_times(tmp_path, "k")[0]
    assert [each.shapes["x"][0] for each in found] == list(range(144, 400))


def test_a_model_is_known_by_its_content_and_the_machine(tmp_path: Path) -> None:
    one, other, folder = tmp_path / "one", tmp_path / "other", tmp_path / "folder"
    one.write_bytes(b"a")
    other.write_bytes(b"a")
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"b")
    assert model_key(one, "m") == model_key(other, "m") != model_key(one, "n")
    assert model_key(folder, "m") != model_key(one, "m")
    with pytest.raises(InvalidArgumentError, match="nothing' cannot be read"):
        model_key(tmp_path / "nothing", "m")


def test_times_of_other_shapes_correct_nothing_and_are_named() -> None:
    found, note = of_shapes([time(Unit.CPU, 5, rows=4)], SHAPES)
    assert not found
    assert "--shape x=4,3,224,224" in note
    assert of_shapes([], SHAPES) == ({}, "")
    assert of_shapes([time(Unit.CPU, 5), time(Unit.CPU, 9, rows=4)], SHAPES) == ({Unit.CPU: time(Unit.CPU, 5)}, "")


def plan_with(ops: list[Op], *times: MeasuredTime) -> Plan:
    request = Request("model", ops, "convolution", measured={each.unit: each for each in times})
    return plan(request, target_of(chip("M2 Pro"), constants()), constants())


def test_the_whole_model_on_a_unit_takes_the_measured_time_and_plans_follow() -> None:
    ops = vision.resnet_50().ops
    before = plan_with(ops)
    assert {each.unit for each in before.segments} == {Unit.ANE}
    assert before.measured is None
    wholes = {each.unit: each for each in before.wholes}
    slow = MeasuredTime(Unit.ANE, SHAPES, 50 * before.ms, 100, "triune tune, 2026-12-01")
    found = plan_with(ops, slow)
    assert {each.unit for each in found.segments} == {Unit.GPU}
    assert found.measured is None
    ane = next(each for each in found.wholes if each.unit is Unit.ANE)
    assert ane.ms == pytest.approx(slow.ms)
    assert ane.predicted_ms == pytest.approx(wholes[Unit.ANE].ms)
    assert ane.measured is slow
    assert next(each for each in found.wholes if each.unit is Unit.GPU).ms == wholes[Unit.GPU].ms


def test_a_plan_on_a_measured_unit_is_measured() -> None:
    ops = vision.resnet_50().ops
    fast = MeasuredTime(Unit.ANE, SHAPES, 0.5, 100, "triune tune, 2026-12-01")
    found = plan_with(ops, fast)
    assert found.measured is fast
    assert found.ms == pytest.approx(0.5)
    assert found.ms == pytest.approx(sum(each.ms for each in found.segments))
    content = as_json([found])["plans"][0]
    assert content["measured"] == {"ms": 0.5, "joules": None, "num_calls": 100, "source": "triune tune, 2026-12-01"}
    assert [each["unit"] for each in content["whole_model_on_one_unit"] if each["measured"]] == ["ane"]


def test_the_joules_of_the_whole_model_are_the_measured_ones_and_plans_follow() -> None:
    ops = vision.resnet_50().ops
    before = plan_with(ops)
    ane = next(each for each in before.wholes if each.unit is Unit.ANE)
    assert ane.ms
    assert ane.joules
    dear = MeasuredTime(Unit.ANE, SHAPES, ane.ms, 100, joules=1000 * ane.joules)
    found = plan_with(ops, dear)
    assert found.measured is dear
    assert found.joules == pytest.approx(dear.joules)
    assert sum(op.joules for op in found.ops) < found.joules, "the launch takes some"
    assert {each.joules for each in found.wholes if each.unit is not Unit.ANE} == {
        each.joules for each in before.wholes if each.unit is not Unit.ANE
    }
    request = Request("model", ops, "convolution", Goal.ENERGY, latency_limit_ms=50, measured={Unit.ANE: dear})
    cheapest = plan(request, target_of(chip("M2 Pro"), constants()), constants())
    assert Unit.ANE not in {each.unit for each in cheapest.segments}
    assert as_json([found])["plans"][0]["measured"]["joules"] == dear.joules
