"""Core ML's choice under `cpuAndNeuralEngine`, on what was published of it (751K, notes/coreml_dispatch.md, M4)."""

import numpy as np
import pytest

from triune.core.units import Unit
from triune.hardware.rules import Facts
from triune.planning.core_ml import choice_of, core_ml_choice, estimate_ms
from triune.planning.op import Op, OpClass

C, A = Unit.CPU, Unit.ANE


def conv(kernel: int = 3, channels: int = 64, pixels: int = 1024) -> Op:
    return Op(
        name="c",
        op_type="Conv",
        op_class=OpClass.CONV,
        flops=2 * pixels * channels * channels * kernel**2,
        read=channels * pixels,
        written=channels * pixels,
        facts=Facts(op="Conv", kernel=(kernel, kernel)),
    )


def reduction() -> Op:
    return Op(name="r", op_type="ReduceSum", op_class=OpClass.REDUCE, read=65536, written=1024, facts=Facts(op="r"))


def simple(op_type: str, op_class: OpClass, read: float = 65536, written: float = 65536, flops: float = 0) -> Op:
    return Op(
        name="o",
        op_type=op_type,
        op_class=op_class,
        read=read,
        written=written,
        flops=flops,
        facts=Facts(op=op_type),
    )


@pytest.mark.parametrize(
    ("op", "ane_us", "cpu_us"),
    [
        (conv(3), 4.67, 100.06),
        (conv(1), 1.17, 21.62),
        (simple("MatMul", OpClass.PRODUCT, flops=2 * 128 * 256 * 128), 2.24, 11.12),
        (simple("MatMul", OpClass.MATMUL, flops=2 * 128 * 512 * 512), 12.68, 400.04),
        (simple("Resize", OpClass.MOVE, 65536, 4 * 65536), 3.31, 499.64),
        (simple("Concat", OpClass.MOVE), 2.62, 22.79),
        (simple("Attention", OpClass.PRODUCT, flops=4 * 8 * 128 * 128 * 64), 7.18, 8.62),
        (simple("Softmax", OpClass.REDUCE), 3.59, 4.31),
        (simple("Relu", OpClass.ELEMENTWISE), 2.62, 2.62),
        (simple("Transpose", OpClass.MOVE), 3.81, 3.00),
    ],
)
def test_published_estimates(op: Op, ane_us: float, cpu_us: float) -> None:
    cpu, ane = estimate_ms(op)
    assert (1e3 * ane, 1e3 * cpu) == pytest.approx((ane_us, cpu_us), rel=0.01)


@pytest.mark.parametrize(
    ("ops", "units"),
    [
        # One convolution saves 0.095 ms, less than the 0.25 ms of a graph on the Neural Engine; four save 0.38 ms.
        ([conv()], [C]),
        ([conv()] * 4, [A] * 4),
        # Two convolutions around a reduction: the whole graph stays on the CPU.
        ([conv(), reduction(), conv()], [C] * 3),
        # Single operations of the published models: all on the CPU, but convolutions of 13 to 15 and bilinear resizing.
        ([conv(13)], [A]),
        ([conv(15)], [A]),
        ([simple("Resize", OpClass.MOVE, 65536, 4 * 65536)], [A]),
        ([simple("Relu", OpClass.ELEMENTWISE)], [C]),
        ([simple("Softmax", OpClass.REDUCE)], [C]),
        ([simple("Transpose", OpClass.MOVE)], [C]),
    ],
)
def test_published_choices(ops: list[Op], units: list[Unit]) -> None:
    assert list(core_ml_choice(ops, tier=4).units) == units


def test_a_segment_at_an_end_saves_a_quarter_of_a_millisecond_and_one_in_the_middle_three_eighths() -> None:
    def units(*pairs: tuple[float, float]) -> list[Unit]:
        return list(choice_of(np.array(pairs)).units)

    only_cpu = (0.1, np.inf)
    assert units((0.24, 0.0)) == [C]
    assert units((0.26, 0.0)) == [A]
    assert units((0.26, 0.0), only_cpu) == [A, C]
    assert units((0.24, 0.0), only_cpu) == [C, C]
    assert units(only_cpu, (0.37, 0.0), only_cpu) == [C, C, C]
    assert units(only_cpu, (0.38, 0.0), only_cpu) == [C, A, C]


def test_rules_hold_for_the_choice_too() -> None:
    refused = Op(name="s", op_type="CumSum", op_class=OpClass.REDUCE, read=1e6, written=1e6, facts=Facts(op="CumSum"))
    choice = core_ml_choice([*[conv()] * 9, refused, *[conv()] * 9], tier=4)
    assert list(choice.units) == [*[A] * 9, C, *[A] * 9]
    assert (choice.num_on_ane, choice.num_segments) == (18, 3)


# What Core ML estimated of whole published models, in microseconds on the CPU and on the Neural Engine, and what it
# chose (the same source, data/03_compile/opdispatch/ana/ctx). Where the last operation costs the same on both, and its
# output on the Neural Engine as much as a change of units, Core ML took this one time and that one another: None.
_CONV, _RELU = (100.0639, 4.6743), (2.6214, 2.6214)
_BODY = [_CONV, _RELU, _CONV, _RELU]
_LINEAR_256, _LINEAR_512 = (744.195, 28.9042), (400.0361, 12.6842)


@pytest.mark.parametrize(
    ("estimates", "units"),
    [
        ([*_BODY, (4.3084, 3.5903), *_BODY], [*[A] * 8, None]),
        ([*_BODY, (4.3085, np.inf), *_BODY], [C] * 9),
        ([*_BODY, (3213.162, np.inf), *_BODY], [C] * 9),
        (
            [_LINEAR_256, (1.3107, 1.3107)] * 2 + [(44.4699, 6.283)] + [_LINEAR_512, _RELU] * 2,
            [*[A] * 8, None],
        ),
    ],
    ids=["abs", "cumsum", "conv of 17x17", "linear"],
)
def test_choices_of_whole_published_models(estimates: list[tuple[float, float]], units: list[Unit | None]) -> None:
    found = choice_of(np.array(estimates) / 1e3).units
    assert [unit if wanted else None for unit, wanted in zip(found, units, strict=True)] == units
