"""The rules by which units refuse operations: each on the cases that were published for it."""

import re

import pytest

from triune.core.units import Unit
from triune.hardware.rules import NEWEST_TIER, Facts, refusal, rules, tier_of

# What Core ML's analytics said on an M4 of models with one operation (751K, data/03_compile/opdispatch): operations
# that the Neural Engine takes, and such that only the CPU takes.
_TAKEN = """
abs add affine atan avg_pool batch_norm batch_to_space ceil clip concat conv conv_transpose cos depth_to_space elu equal
erf exp exp2 fill_like floor floor_div gather gather_nd gelu greater instance_norm inverse l2_norm l2_pool layer_norm
leaky_relu less linear linear_activation local_response_norm log logical_and matmul max_pool maximum minimum mul
not_equal pad pixel_shuffle pixel_unshuffle pow prelu quantize real_div reduce_l1_norm reduce_l2_norm reduce_log_sum
reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_sum reduce_sum_square relu relu6 resample reshape
resize_bilinear reverse round rsqrt scaled_dot_product_attention scaled_tanh select sigmoid sigmoid_hard sign silu sin
slice_by_index slice_by_size softmax softplus softsign space_to_batch space_to_depth split sqrt square squeeze stack sub
tanh thresholded_relu tile topk transpose upsample_bilinear upsample_nearest_neighbor
"""
_ONLY_CPU = """
acos asin atanh band_part cosh crop_resize cumsum gru lstm mod non_zero one_hot random_normal range_1d reduce_argmax
reduce_prod rnn scatter scatter_along_axis sinh sliding_windows tan
"""


def reason(facts: Facts, unit: Unit = Unit.ANE, tier: int = 4) -> str:
    found = refusal(facts, unit, "mil", tier)
    return found.reason if found else ""


@pytest.mark.parametrize("op", _TAKEN.split())
def test_operations_that_the_neural_engine_of_an_m4_takes(op: str) -> None:
    assert reason(Facts(op=op, shapes=((1, 64, 32, 32),))) == ""


@pytest.mark.parametrize("op", _ONLY_CPU.split())
def test_operations_that_only_the_cpu_of_an_m4_takes(op: str) -> None:
    assert reason(Facts(op=op, shapes=((1, 64, 32, 32),)))


@pytest.mark.parametrize(
    ("facts", "is_taken"),
    [
        # Squares up to 16, rows up to 15, columns up to 31.
        (Facts(op="conv", kernel=(16, 16)), True),
        (Facts(op="conv", kernel=(17, 17)), False),
        (Facts(op="conv", kernel=(1, 15)), True),
        (Facts(op="conv", kernel=(1, 16)), False),
        (Facts(op="conv", kernel=(1, 31)), False),
        (Facts(op="conv", kernel=(31, 1)), True),
        (Facts(op="conv", kernel=(32, 1)), False),
        (Facts(op="max_pool", kernel=(8, 8)), True),
        (Facts(op="max_pool", kernel=(9, 9)), False),
        (Facts(op="max_pool", kernel=(9, 1)), True),
        (Facts(op="max_pool", kernel=(1, 9)), False),
        (Facts(op="avg_pool", kernel=(14, 14)), True),
        (Facts(op="matmul", inner=32768), True),
        (Facts(op="matmul", inner=40000), False),
        (Facts(op="relu", shapes=((1, 65536, 1, 1),)), True),
        (Facts(op="relu", shapes=((1, 65537, 1, 1),)), False),
        (Facts(op="relu", shapes=((1, 1, 1, 16385),)), True),
        (Facts(op="transpose", shapes=((1, 2, 3, 4, 5),)), True),
        (Facts(op="transpose", shapes=((1, 1, 2, 3, 4, 5),)), False),
        (Facts(op="add", dtype="int32", has_integers=True), False),
        (Facts(op="mul", dtype="int32", has_integers=True), False),
        (Facts(op="matmul", dtype="int32", has_integers=True), False),
        (Facts(op="cast", dtype="int32", has_integers=True), False),
        (Facts(op="topk", dtype="int32", has_integers=True), True),
        (Facts(op="gather", has_computed_index=True), False),
        (Facts(op="gather"), True),
        (Facts(op="slice_by_size", has_computed_index=True), False),
    ],
)
def test_sizes_and_types_that_the_neural_engine_of_an_m4_takes(facts: Facts, is_taken: bool) -> None:
    assert (reason(facts) == "") == is_taken


@pytest.mark.parametrize(
    ("facts", "first"),
    [
        (Facts(op="sin"), 3),
        (Facts(op="cos"), 3),
        (Facts(op="random_uniform"), 3),
        (Facts(op="topk"), 2),
        (Facts(op="resample"), 2),
        (Facts(op="relu", shapes=((1, 1, 1, 16385),)), 4),
        (Facts(op="conv", kernel=(1, 14)), 4),
    ],
)
def test_what_newer_chips_take(facts: Facts, first: int) -> None:
    assert [not reason(facts, tier=tier) for tier in range(1, NEWEST_TIER + 1)] == [
        tier >= first for tier in range(1, NEWEST_TIER + 1)
    ]


def test_reasons_name_the_number_and_the_limit() -> None:
    assert reason(Facts(op="conv", kernel=(1, 21))) == "a kernel of 21; 15 is the widest"
    assert reason(Facts(op="conv", kernel=(1, 14)), tier=1) == "a kernel of 14; 13 is the widest before A16 and M4"


def test_no_rule_refuses_the_cpu() -> None:
    assert not [rule for rule in rules() if rule.unit in (Unit.CPU, Unit.AMX)]


def test_each_rule_has_a_source_a_reason_and_operations() -> None:
    for rule in rules():
        assert rule.source
        assert set(re.findall(r"{(\w+)}", rule.reason)) <= {"op", "name", "dtype", "size"}
        assert rule.ops["onnx"] | rule.ops["mil"]
        assert rule.first_tier <= rule.last_tier


@pytest.mark.parametrize(
    ("generation", "tier"), [("M1", 1), ("M2", 2), ("M4", 4), ("A15", 3), ("A17", 5), ("M9", 5), ("A12", 1), ("A99", 5)]
)
def test_tiers_of_chips(generation: str, tier: int) -> None:
    assert tier_of(generation) == tier
