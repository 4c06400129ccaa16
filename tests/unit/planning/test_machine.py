"""This machine as a target: Apple's chips corrected by measurements, other machines by measurements alone."""

import math
from dataclasses import replace

import pytest

from triune.core.errors import UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.chips import chip
from triune.hardware.facts import UnitFacts
from triune.hardware.figures import Figure, FigureKind
from triune.planning.candidates import Request
from triune.planning.constants import constants
from triune.planning.cost import costs_of, sizes_of
from triune.planning.machine import target_here
from triune.planning.measured import MeasuredTime
from triune.planning.plan import Goal
from triune.planning.planner import plan
from triune.planning.published import kernels, vision
from triune.planning.units import target_of

HERE = "measured here on 2026-12-01"


def unit(kind: Unit, name: str, presence: Presence = Presence.PRESENT, **figures: Figure) -> UnitFacts:
    return UnitFacts(UnitStatus(kind, presence), name, memory_bytes=2**34, figures=figures)


def rate(value: float, basis: str = "fp32") -> Figure:
    return Figure(value, "TFLOPS", FigureKind.MEASURED, HERE, basis=basis)


BANDWIDTH = Figure(40, "GB/s", FigureKind.MEASURED, HERE)
XEON = [
    unit(Unit.CPU, "Intel Xeon", matmul_fp32_tflops=rate(0.2), memory_gb_per_s=BANDWIDTH),
    unit(Unit.AMX, "Intel Xeon", matmul_bf16_tflops=rate(2, "bf16"), memory_gb_per_s=BANDWIDTH),
    unit(Unit.ANE, "", Presence.EMULATED),
]


def test_measured_products_take_the_measured_time() -> None:
    target = target_here(XEON, constants())
    assert list(target.units) == [Unit.CPU, Unit.AMX]
    product = sizes_of(kernels.product(2048, 2048, 2048).ops)
    for found, tflops in ((target.units[Unit.CPU], 0.2), (target.units[Unit.AMX], 2)):
        want = 2 * 2048**3 / tflops / 1e9 + found.rates.op_ms
        assert costs_of(product, found.rates).ms[0] == pytest.approx(want)
    assert target.units[Unit.AMX].rates.element_bytes == 2
    assert "not planned for, since they are absent, emulated or not measured: ane" in target.notes


def test_a_plan_of_a_measured_machine_has_no_published_error_and_no_energy() -> None:
    request = Request("model", vision.resnet_50().ops, "convolution")
    found = plan(request, target_here(XEON, constants()), constants())
    assert {each.unit for each in found.segments} == {Unit.AMX}
    assert found.latency_error is None
    assert math.isnan(found.joules)
    assert any("no published measurement tells" in note for note in found.notes)
    with pytest.raises(UnsupportedError, match="the power of each unit, which is not known of cpu, amx on Intel Xeon"):
        plan(replace(request, goal=Goal.ENERGY), target_here(XEON, constants()), constants())


def test_a_machine_that_was_not_measured_says_how_it_can_be() -> None:
    with pytest.raises(UnsupportedError, match=r"Abacus is not .* `triune units --measure` .* \(--chip\): M1, M1 Pro"):
        target_here([unit(Unit.CPU, "Abacus")], constants())


def test_one_of_apples_chips_is_corrected_by_what_was_measured() -> None:
    base = target_of(chip("M2 Pro"), constants())
    here = [unit(Unit.CPU, "Apple M2 Pro"), unit(Unit.GPU, "Apple M2 Pro", matmul_fp16_tflops_here=rate(3, "fp16"))]
    found = target_here(here, constants())
    assert found.units[Unit.ANE] == base.units[Unit.ANE]
    assert found.units[Unit.GPU].rates.tflops < base.units[Unit.GPU].rates.tflops
    assert found.is_scored
    assert found.units[Unit.GPU].notes == (f"the peak of gpu is {HERE}: 3 TFLOPS in fp16",)


def test_measured_joules_make_plans_of_least_energy_where_no_power_is_published() -> None:
    """The power of a unit is then the same for all operations."""
    ops, shapes = vision.resnet_50().ops, {"x": (1, 3, 224, 224)}
    measured = {
        Unit.CPU: MeasuredTime(Unit.CPU, shapes, 100, 50, joules=1.5),
        Unit.AMX: MeasuredTime(Unit.AMX, shapes, 60, 50, joules=3.0),
    }
    request = Request("model", ops, "convolution", Goal.ENERGY, latency_limit_ms=500, measured=measured)
    found = plan(request, target_here(XEON, constants()), constants())
    assert {each.unit for each in found.segments} == {Unit.CPU}
    assert (found.ms, found.joules) == (pytest.approx(100), pytest.approx(1.5))
    assert {each.unit: each.joules for each in found.wholes} == pytest.approx({Unit.CPU: 1.5, Unit.AMX: 3.0})
    lacking = replace(request, measured={Unit.CPU: measured[Unit.CPU]})
    with pytest.raises(UnsupportedError, match="not known of amx on Intel Xeon.*triune serve"):
        plan(lacking, target_here(XEON, constants()), constants())
    alone = plan(replace(lacking, units=(Unit.CPU,)), target_here(XEON, constants()), constants())
    assert alone.joules == pytest.approx(1.5)
