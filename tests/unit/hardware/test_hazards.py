"""Hazards: each on the values that were published for it."""

import re

import pytest

from triune.core.units import Unit
from triune.hardware.rules.hazards import Observed, explanation, hazards


@pytest.mark.parametrize(
    ("observed", "unit", "precision", "is_wrong"),
    [
        # ane-guide, part 1, chapter 3: 32752 passes through a linear, 32768 does not; an addition holds 65504.
        (Observed(op="MatMul", result=32752), Unit.ANE, "fp16", False),
        (Observed(op="MatMul", result=32768), Unit.ANE, "fp16", True),
        (Observed(op="MatMul", result=32768), Unit.GPU, "fp16", False),
        (Observed(op="Mul", result=60000.5), Unit.ANE, "fp16", False),
        (Observed(op="Mul", result=65536.5), Unit.GPU, "fp16", True),
        (Observed(op="Mul", result=65536.5), Unit.AMX, "bf16", False),
        # A running sum of ones stops at 2048.
        (Observed(op="ReduceSum", num_terms=2048), Unit.GPU, "fp16", False),
        (Observed(op="ReduceSum", num_terms=2049), Unit.GPU, "fp16", True),
        (Observed(op="Floor", result=2049, is_whole=True), Unit.GPU, "fp16", True),
        (Observed(op="Floor", result=257, is_whole=True), Unit.AMX, "bf16", True),
        (Observed(op="Floor", result=256, is_whole=True), Unit.AMX, "bf16", False),
        (Observed(op="Sub", result=0.5, operand=100), Unit.GPU, "fp16", True),
        (Observed(op="Sub", result=0.0, operand=1), Unit.AMX, "bf16", True),
        (Observed(op="Sub", result=10, operand=100), Unit.AMX, "bf16", False),
        (Observed(op="Relu", has_nan=True), Unit.ANE, "fp16", True),
        (Observed(op="Log", has_zero=True), Unit.ANE, "fp16", True),
        (Observed(op="Sub", result=0.5, operand=100), Unit.CPU, "fp32", False),
    ],
)
def test_values(observed: Observed, unit: Unit, precision: str, is_wrong: bool) -> None:
    assert bool(explanation(observed, unit, precision)) == is_wrong


@pytest.mark.parametrize(("operand", "is_moved", "wrong"), [(4094, True, []), (4096, True, [1, 2]), (60000, False, [])])
def test_slices_above_4094_are_wrong_on_m1_and_m2(operand: float, is_moved: bool, wrong: list[int]) -> None:
    observed = Observed(op="Slice", result=operand, operand=operand, is_moved=is_moved)
    assert [tier for tier in range(1, 6) if explanation(observed, Unit.ANE, "fp16", tier)] == wrong


def test_each_hazard_has_a_source_and_says_what_it_saw() -> None:
    for hazard in hazards():
        assert hazard.source
        assert set(re.findall(r"{(\w+)}", hazard.reason)) <= {"op", "size"}
        assert hazard.precisions <= {"fp16", "bf16"}
    assert "reaches 40000, and" in explanation(Observed(op="Gemm", result=40000), Unit.ANE, "fp16")
    assert "ane-guide" in explanation(Observed(op="Gemm", result=40000), Unit.ANE, "fp16")
