"""Plans of small models: goals, reasons, advice, and what is impossible."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.graph.normalize import normalize
from triune.hardware.chips import chip
from triune.hardware.rules import Facts
from triune.planning.as_json import as_json
from triune.planning.candidates import Request, candidates
from triune.planning.constants import constants
from triune.planning.graph_ops import KEPT, ops_of
from triune.planning.op import Op, OpClass
from triune.planning.plan import Goal, Plan
from triune.planning.planner import plan
from triune.planning.published import decoders, encoders, kernels, vision
from triune.planning.units import target_of


def plan_of(ops: list[Op], name: str = "M2 Pro", **options: object) -> Plan:
    return plan(Request("model", ops, "convolution", **options), target_of(chip(name), constants()), constants())  # type: ignore[arg-type]


def resnet() -> list[Op]:
    return vision.resnet_50().ops


def refused(position: int, ops: list[Op]) -> list[Op]:
    """The operations with a running sum put in, which the Neural Engine refuses."""
    before = ops[position - 1]
    op = Op(
        name="sums",
        op_type="CumSum",
        op_class=OpClass.REDUCE,
        read=before.written,
        written=before.written,
        inputs=before.outputs,
        outputs=("sums",),
        facts=Facts(op="CumSum", shapes=((1, 256, 56, 56),)),
    )
    return [*ops[:position], op, *ops[position:]]


@pytest.mark.parametrize("goal", Goal)
def test_totals_are_sums_of_segments_and_operations(goal: Goal) -> None:
    found = plan_of(refused(30, resnet()), goal=goal)
    assert found.ms == pytest.approx(sum(each.ms for each in found.segments))
    assert found.joules == pytest.approx(sum(each.joules for each in found.segments))
    for each in found.segments:
        assert each.ms == pytest.approx(each.launch_ms + sum(op.ms for op in each.ops))
        assert {op.unit for op in each.ops} == {each.unit}
    assert [op.name for op in found.ops] == [op.name for op in refused(30, resnet())]


def test_the_result_of_a_fused_operation_is_passed_to_another_unit() -> None:
    def transfers(text: str) -> list[float]:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1), "axis"))
        ops = ops_of(normalize(model, keep=KEPT))
        found = candidates(Request("model", ops, "convolution"), target_of(chip("M2 Pro"), constants()))
        return list(found.time.transfer)

    plain = """g (float[1,8,64,64] x) => (float[1,8,64,64] z) {
        y = Conv<pads=[1,1,1,1]>(x, w)
        z = CumSum(y, axis)
    }"""
    *_, expected = transfers(plain)
    assert expected > 0
    *_, fused, found = transfers(plain.replace("z = CumSum(y", "r = Relu(y) z = CumSum(r"))
    assert fused == np.inf
    assert found == expected


def test_a_convolutional_network_goes_to_the_neural_engine() -> None:
    found = plan_of(resnet())
    assert [each.unit for each in found.segments] == [Unit.ANE]
    assert "here" in found.segments[0].why
    assert "gpu" in found.segments[0].why


def test_decoding_a_large_model_goes_to_the_gpu() -> None:
    found = plan_of(decoders.decoder_step("Llama-2-7B", 1, 512).ops)
    assert [each.unit for each in found.segments] == [Unit.GPU]


def test_no_goal_is_served_better_by_another_goal() -> None:
    ops = refused(30, resnet())
    plans = {goal: plan_of(ops, goal=goal) for goal in Goal}
    assert min(plans.values(), key=lambda each: each.ms).ms == plans[Goal.LATENCY].ms
    assert min(each.joules for each in plans.values()) == plans[Goal.ENERGY].joules
    assert min(each.period_ms for each in plans.values()) == plans[Goal.THROUGHPUT].period_ms


def test_a_pipeline_gives_each_unit_one_segment() -> None:
    found = plan_of(resnet(), goal=Goal.THROUGHPUT)
    units = [each.unit for each in found.segments]
    assert len(units) == len(set(units)) > 1
    assert found.period_ms < plan_of(resnet()).ms
    assert found.apart_per_second == pytest.approx(sum(1e3 / each.ms for each in found.wholes if each.ms))


def test_the_least_energy_within_a_limit() -> None:
    ops = decoders.decoder_step("Llama-2-7B", 1, 512).ops
    fastest = plan_of(ops)
    frugal = plan_of(ops, goal=Goal.ENERGY, latency_limit_ms=1e4)
    assert frugal.joules < fastest.joules
    assert frugal.ms > fastest.ms
    between = plan_of(ops, goal=Goal.ENERGY, latency_limit_ms=(fastest.ms + frugal.ms) / 2)
    assert between.ms <= (fastest.ms + frugal.ms) / 2
    assert frugal.joules <= between.joules <= fastest.joules


def test_a_limit_that_no_plan_keeps() -> None:
    with pytest.raises(
        UnsupportedError, match=r"no plan of model takes at most 0.01 ms: the fastest .* --latency-limit"
    ):
        plan_of(resnet(), goal=Goal.ENERGY, latency_limit_ms=0.01)


def test_a_limit_is_for_energy_alone() -> None:
    with pytest.raises(InvalidArgumentError, match="--for energy"):
        plan_of(resnet(), latency_limit_ms=1)


def test_an_operation_without_a_unit_is_named() -> None:
    with pytest.raises(
        UnsupportedError, match=r"no plan: 1 operation has no unit: 'CumSum sums': ane: CumSum does not"
    ):
        plan_of(refused(30, resnet()), units=(Unit.ANE,))


def test_units_that_a_chip_lacks() -> None:
    with pytest.raises(InvalidArgumentError, match=r"A17 Pro cannot use gpu"):
        plan_of(resnet(), "A17 Pro", units=(Unit.GPU,))


def test_a_model_without_operations() -> None:
    with pytest.raises(InvalidArgumentError, match="nothing to plan"):
        plan_of([])


def test_refusals_split_segments_and_say_what_to_replace() -> None:
    found = plan_of(refused(30, resnet()))
    assert {op.unit for op in found.ops if op.name == "sums"} != {Unit.ANE}
    (sums,) = (op for op in found.ops if op.name == "sums")
    assert sums.refusals[Unit.ANE].reason == "CumSum does not run there"
    advice = found.advice[0]
    assert "ane refuses CumSum sums: CumSum does not run there. Express it in" in advice.what
    assert advice.saves_ms is not None
    # What it saves is at most what the model is slower with it.
    assert 0 < advice.saves_ms < found.ms - plan_of(resnet()).ms + 0.5


def test_products_on_the_neural_engine_are_faster_as_convolutions() -> None:
    products = encoders.bert(128, layers=6).ops
    found = plan_of(products, units=(Unit.ANE,))
    advice = next(each for each in found.advice if "--layout ane" in each.what)
    convolutions = plan_of(encoders.bert(128, layers=6, has_convolutions=True).ops, units=(Unit.ANE,))
    assert advice.saves_ms == pytest.approx(found.ms - convolutions.ms)
    assert not any("--layout ane" in each.what for each in convolutions.advice)


def test_long_rows_are_to_be_padded() -> None:
    ops = [
        Op(
            name=f"c{index}",
            op_type="Conv",
            op_class=OpClass.CONV,
            flops=1e9,
            rows=1e4,
            columns=64,
            written=1e6,
            facts=Facts(op="Conv", kernel=(3, 3), shapes=((1, 64, 80, 197),)),
        )
        for index in range(8)
    ]
    (advice,) = plan_of(ops).advice
    assert "a last axis of 197 takes the memory of 224" in advice.what
    assert advice.saves_ms is None


@pytest.mark.parametrize(("bits", "first"), [(8.0, 2), (4.5, 3)])
def test_packed_weights_stream_to_newer_neural_engines(bits: float, first: int) -> None:
    def ms(name: str, weight_bits: float | None) -> float:
        op = kernels.product(1, 4096, 4096).ops[0]
        return plan_of([replace(op, weight_bits=weight_bits)], name, units=(Unit.ANE,)).ms

    for tier, name in enumerate(("M1", "M2", "M3", "M4"), start=1):
        if tier >= first:
            assert ms(name, bits) < ms(name, None)
        else:
            assert ms(name, bits) == ms(name, None)


def test_what_is_fused_stays_with_the_operation_before() -> None:
    ops: list[Op] = []
    for index in range(20):
        conv = {"op_type": "Conv", "op_class": OpClass.CONV, "flops": 1e9, "rows": 1e4, "columns": 64, "written": 1e5}
        facts = Facts(op="Conv", kernel=(3, 3))
        ops.append(Op(name=f"c{index}", outputs=(f"c{index}",), facts=facts, **conv))  # type: ignore[arg-type]
        ops.append(
            Op(
                name=f"r{index}",
                op_type="Relu",
                op_class=OpClass.ELEMENTWISE,
                is_fused=True,
                inputs=(f"c{index}",),
                facts=Facts(op="Relu"),
            )
        )
    found = plan_of(ops, goal=Goal.THROUGHPUT)
    assert len(found.segments) > 1
    assert all(each.ops[0].op_type == "Conv" for each in found.segments)


def test_weights_larger_than_the_memory_are_told() -> None:
    ops = decoders.decoder_step("Llama-2-70B", 1, 512).ops
    (note,) = plan_of(ops).notes
    assert note == "the weights take 128 GB, and M2 Pro has 32 GB at most: it would not run"
    assert plan_of(ops, "M2 Ultra").notes == []


def test_little_is_known_of_cpus() -> None:
    (note,) = plan_of(resnet(), units=(Unit.AMX,)).notes
    assert "few measurements of CPUs are published" in note


def test_units_that_the_error_does_not_tell_apart() -> None:
    found = plan_of(resnet())
    assert found.latency_error is not None
    assert [found.is_close(each) for each in found.wholes] == [False, False, False]
    (gpu,) = (each for each in found.wholes if each.unit is Unit.GPU)
    assert found.is_close(replace(gpu, ms=found.ms * (1 + 0.9 * found.latency_error.median)))
    assert not found.is_close(replace(gpu, ms=found.ms * (1 + 1.1 * found.latency_error.median)))


def test_every_plan_says_how_well_it_predicts() -> None:
    found = plan_of(resnet())
    assert found.latency_error is not None
    assert found.latency_error.group == "convolution"
    assert found.joules_error is not None


def test_plans_are_json() -> None:
    values = json.loads(json.dumps(as_json([plan_of(refused(30, resnet()))]), allow_nan=False))
    assert values["kind"] == "predicted"
    (only,) = values["plans"]
    assert only["for"] == "latency"
    assert sum(each["ms"] for each in only["segments"]) == pytest.approx(only["ms"])
    ops = {each["name"]: each for segment in only["segments"] for each in segment["ops"]}
    assert ops["sums"]["refused"]["ane"]["reason"] == "CumSum does not run there"
    assert "ane" not in ops["sums"]["unit_ms"]
    assert len(only["core_ml_cpu_and_ne"]["units"]) == len(ops)
