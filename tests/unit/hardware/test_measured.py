import dataclasses
import json
from pathlib import Path

import pytest

from support.recorded_machines import recorded
from triune.core.units import Unit
from triune.hardware.describe import describe_units
from triune.hardware.facts import RuntimeVersion
from triune.hardware.figures import Figure, FigureKind
from triune.hardware.measured import Measured, load_measured, machine_key, save_measured

RATE = Figure(0.25, "TFLOPS", FigureKind.MEASURED, "measured here on 2026-12-01", "fp32", note="a note")


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert load_measured(tmp_path, "key") == Measured()
    path = save_measured(tmp_path / "new", "key", {Unit.CPU: {"matmul_fp32_tflops": RATE}})
    found = load_measured(tmp_path / "new", "key")
    assert (found.figures, found.reason) == ({Unit.CPU: {"matmul_fp32_tflops": RATE}}, "")
    save_measured(tmp_path / "new", "key", {})
    assert load_measured(tmp_path / "new", "key").figures == {}
    assert [each.name for each in (tmp_path / "new").iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("units"),
        lambda content: content["units"].update(npu={}),
        lambda content: content["units"].update(cpu=3),
        lambda content: content["units"]["cpu"]["rate"].update(value="much"),
        lambda content: content["units"]["cpu"]["rate"].update(value=-1),
        lambda content: content["units"]["cpu"]["rate"].update(kind="guessed"),
        lambda content: content["units"]["cpu"]["rate"].update(source=None),
        lambda content: content["units"]["cpu"]["rate"].pop("unit"),
        lambda content: content["units"]["cpu"].update(rate=[]),
    ],
)
def test_a_file_that_was_changed_gives_no_figures_and_the_reason(change: object, tmp_path: Path) -> None:
    path = save_measured(tmp_path, "key", {Unit.CPU: {"rate": RATE}})
    content = json.loads(path.read_text())
    assert callable(change)
    change(content)
    path.write_text(json.dumps(content))
    found = load_measured(tmp_path, "key")
    assert not found.figures
    assert "is broken" in found.reason


def test_a_file_that_is_none_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text("no JSON")
    assert "is broken" in load_measured(tmp_path, "key").reason
    (tmp_path / "folder.json").mkdir()
    assert "it is a folder" in load_measured(tmp_path, "folder").reason


def test_another_machine_or_version_has_another_key() -> None:
    xeon = describe_units(recorded("xeon-amx"), is_installed=lambda _: True)
    keys = {machine_key(xeon), machine_key(describe_units(recorded("h200"), is_installed=lambda _: True))}
    for version in ("1.32.0", "1.33.0"):
        runtime = RuntimeVersion("onnxruntime", "ONNX Runtime", version)
        keys.add(machine_key([dataclasses.replace(each, runtimes=[runtime]) for each in xeon]))
    assert len(keys) == 4
    assert machine_key(xeon) == machine_key(describe_units(recorded("xeon-amx"), is_installed=lambda _: True))
