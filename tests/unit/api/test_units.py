from collections.abc import Mapping
from pathlib import Path

import pytest

import triune
from support.recorded_machines import recorded
from triune.api import measuring
from triune.api.direct.products import Direct
from triune.api.measuring import measure_units
from triune.core.units import Presence, Unit
from triune.hardware.describe import describe_units
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.runtimes.described import with_measured

HERE = "measured here on 2026-12-01"


def measured(value: float, unit: str = "GB/s") -> Figure:
    return Figure(value, unit, FigureKind.MEASURED, HERE)


def described(name: str, figures: Mapping[Unit, Mapping[str, Figure]], reason: str = "") -> Mapping[Unit, UnitFacts]:
    units = describe_units(recorded(name), is_installed=lambda _: True)
    return {each.unit: each for each in with_measured(units, figures, reason)}


def test_what_was_measured_takes_the_place_of_what_is_unknown() -> None:
    figures = {Unit.CPU: {"memory_gb_per_s": measured(20), "matmul_fp32_tflops": measured(0.2, "TFLOPS")}}
    units = described("xeon-amx", figures)
    assert units[Unit.CPU].figures == figures[Unit.CPU]
    assert units[Unit.CPU].unavailable == {}
    # The matrix unit reads the same memory; its rate stays unknown.
    assert units[Unit.AMX].figures == {"memory_gb_per_s": measured(20)}
    assert list(units[Unit.AMX].unavailable) == ["matmul_bf16_tflops"]
    assert units[Unit.GPU].figures == {}


def test_what_was_measured_stands_beside_what_was_published() -> None:
    figures = described("m2-pro", {Unit.CPU: {"memory_gb_per_s": measured(150)}})[Unit.GPU].figures
    assert figures["memory_gb_per_s"].value == 200
    assert figures["memory_gb_per_s"].kind is FigureKind.PUBLISHED
    assert figures["memory_gb_per_s_here"] == measured(150)


def test_what_was_not_measured_yet_says_so() -> None:
    units = described("xeon-amx", {}, "the file is broken")
    assert units[Unit.CPU].unavailable["matmul_fp32_tflops"].endswith("measures it: the file is broken")


def test_this_machine() -> None:
    found = triune.units()
    assert [each.unit for each in found] == list(Unit)
    cpu = found[0]
    assert cpu.presence is Presence.PRESENT
    assert cpu.runtimes[0].name == "onnxruntime"
    assert cpu.runtimes[0].version.count(".") == 2
    assert sum(each.num_cores for each in cpu.cores) >= 1
    assert cpu.memory_bytes


def test_measuring_keeps_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path))
    # Small, and once: how fast is not the question here.
    monkeypatch.setattr(measuring, "_SIZE", 32)
    monkeypatch.setattr(measuring, "_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "_MOST_COPIED_BYTES", 1 << 16)
    tuned: list[str] = []
    monkeypatch.setattr(Direct, "tune", lambda self: tuned.append("tuned"))
    cpu = measure_units()[0]
    assert tuned == ["tuned"]
    assert cpu.figures["matmul_fp32_tflops"].source.startswith("measured here on 20")
    assert "ONNX Runtime" in cpu.figures["matmul_fp32_tflops"].note
    assert {figure.kind for figure in cpu.figures.values()} == {FigureKind.MEASURED}
    assert cpu.figures["memory_gb_per_s"].value > 0
    kept = triune.units()
    assert kept[0].figures == cpu.figures
    for facts in kept:
        if facts.presence is not Presence.PRESENT:
            assert not facts.figures


def test_a_unit_that_cannot_be_measured_says_so_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(measuring, "_MOST_COPIED_BYTES", 1 << 16)

    def refuse(*_: object) -> None:
        raise triune.UnavailableError("there is not the memory for it")

    monkeypatch.setattr(measuring, "load", refuse)
    monkeypatch.setattr(Direct, "tune", lambda self: None)
    cpu = measure_units()[0]
    assert cpu.unavailable["products"] == "there is not the memory for it"
    assert list(cpu.figures) == ["memory_gb_per_s"]


def test_a_busy_machine_is_named_in_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert ", busy: a load of 1000.0 on" in measuring.today()
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert "busy" not in measuring.today()
