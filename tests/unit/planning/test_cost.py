"""The roofline: which part binds, and what each figure does."""

from dataclasses import replace

import pytest

from triune.planning.cost import Rates, costs_of, sizes_of
from triune.planning.op import Op, OpClass

RATES = Rates(
    tflops=10,
    efficiency={OpClass.MATMUL: 0.5},
    half_rows=0,
    half_columns=0,
    weights_gb_per_s=100,
    weights_g_per_s=1e9,
    memory_gb_per_s=50,
    chip_gb_per_s=200,
    knee_mb=1,
    has_fused_attention=False,
    op_ms=0,
    launch_ms=0.1,
    element_bytes=2,
    watts=4,
    pj_per_flop=1,
    pj_per_byte=10,
)


def ms(op: Op, rates: Rates = RATES, weight_bits: float | None = None) -> float:
    return float(costs_of(sizes_of([op], weight_bits), rates).ms[0])


def matmul(rows: int = 1000, inner: int = 1000, columns: int = 1000) -> Op:
    return Op(
        name="m",
        op_type="MatMul",
        op_class=OpClass.MATMUL,
        flops=2 * rows * inner * columns,
        weights=inner * columns,
        rows=rows,
        inner=inner,
        columns=columns,
    )


def test_arithmetic_binds_a_large_product() -> None:
    # 2e9 operations at half of 10 TFLOPS.
    assert ms(matmul()) == pytest.approx(0.4)


def test_weights_bind_a_product_of_one_row() -> None:
    # 2e6 bytes at 100 GB/s.
    assert ms(matmul(rows=1)) == pytest.approx(0.02)


def test_packed_weights_stream_faster_and_unpack_at_their_own_rate() -> None:
    assert ms(matmul(rows=1), weight_bits=4) == pytest.approx(0.005)
    assert ms(matmul(rows=1), replace(RATES, weights_g_per_s=50), weight_bits=4) == pytest.approx(0.02)


def test_few_rows_fill_the_multipliers_in_part() -> None:
    assert ms(matmul(), replace(RATES, half_rows=1000)) == pytest.approx(0.8)
    assert ms(matmul(), replace(RATES, half_columns=1000)) == pytest.approx(0.8)


def test_activations_stay_on_the_chip_up_to_the_knee() -> None:
    small = Op(name="a", op_type="Add", op_class=OpClass.ELEMENTWISE, read=250_000, written=250_000)
    assert ms(small) == pytest.approx(1e6 / 200e6)
    large = replace(small, read=1_000_000, written=500_000)
    assert ms(large) == pytest.approx(1e6 / 200e6 + 2e6 / 50e6)


def test_scores_of_attention_pass_the_memory_unless_it_is_fused() -> None:
    attention = Op(name="a", op_type="Attention", op_class=OpClass.PRODUCT, scratch=5e6)
    assert ms(attention) == pytest.approx(1e6 / 200e6 + 19e6 / 50e6)
    assert ms(attention, replace(RATES, has_fused_attention=True)) == 0


def test_views_and_fused_operations_are_not_launched() -> None:
    rates = replace(RATES, op_ms=1)
    view = Op(name="v", op_type="Reshape", op_class=OpClass.VIEW, read=1e9, written=1e9)
    assert ms(view, rates) == 0
    fused = Op(name="f", op_type="Relu", op_class=OpClass.ELEMENTWISE, is_fused=True)
    assert ms(fused, rates) == 0
    assert ms(replace(fused, is_fused=False), rates) == 1


def test_energy_is_of_time_arithmetic_and_traffic() -> None:
    costs = costs_of(sizes_of([matmul()]), RATES)
    assert costs.joules[0] == pytest.approx(4 * 0.4e-3 + 2e9 * 1e-12 + 2e6 * 10e-12)
