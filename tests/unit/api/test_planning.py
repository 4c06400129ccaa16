"""Plans of models of every form, by `triune.plan`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser, save

import triune
from support.smollm2 import smollm2_gguf
from triune.api import planning
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from triune.core.units import Presence, Unit, UnitStatus
from triune.hardware.facts import UnitFacts
from triune.planning.plan import Goal


def saved(tmp_path: Path, text: str, **constants: np.ndarray) -> Path:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


NET = """g (float[n, 64, 32, 32] x) => (float[n, 64, 32, 32] y) {
    a = Conv<pads=[1,1,1,1]>(x, w)
    b = Relu(a)
    y = Conv<pads=[1,1,1,1]>(b, w)
}"""
WEIGHT = np.ones((64, 64, 3, 3), np.float32)


def test_a_plan_of_an_onnx_file(tmp_path: Path) -> None:
    (plan,) = triune.plan(saved(tmp_path, NET, w=WEIGHT), chip="m2-pro")
    assert isinstance(plan, triune.Plan)
    assert (plan.chip, plan.goal) == ("M2 Pro", Goal.LATENCY)
    assert [op.op_type for op in plan.ops] == ["Conv", "Relu", "Conv"]
    assert plan.ms > 0
    assert plan.latency_error is not None
    assert plan.latency_error.group == "convolution"


def test_a_free_first_dimension_is_one_and_others_must_be_given(tmp_path: Path) -> None:
    path = saved(tmp_path, "g (float[batch, length] x) => (float[batch, length] y) { y = Relu(x) }")
    with pytest.raises(InvalidArgumentError, match=r"have free ones: 'x' \(length\); .* --shape x=1,128"):
        triune.plan(path, chip="m1")
    (plan,) = triune.plan(path, chip="m1", shapes={"x": "4,16"})
    assert len(plan.ops) == 1
    with pytest.raises(InvalidArgumentError, match="one fixed shape"):
        triune.plan(path, chip="m1", shapes={"x": "1,1..16"})


def test_branches_on_constants_are_decided(tmp_path: Path) -> None:
    text = """g (bool c, float[1, 4] x) => (float[1, 4] y) {
        y = If(c) <then_branch = yes () => (float[1, 4] a) { a = Relu(x) },
                   else_branch = no () => (float[1, 4] b) { b = Exp(x) }>
    }"""
    path = saved(tmp_path, text)
    (plan,) = triune.plan(path, chip="m1", constants={"c": False})
    assert [op.op_type for op in plan.ops if op.bound != "nothing"] == ["Exp"]
    (plan,) = triune.plan(path, chip="m1")
    assert [op.op_type for op in plan.ops] == ["If"]
    assert {each.unit for each in plan.segments} == {Unit.AMX}


def test_a_package_is_planned_like_its_source(tmp_path: Path) -> None:
    source = saved(tmp_path, NET, w=WEIGHT)
    triune.convert(source, tmp_path / "model.mlpackage", precision="fp16", shapes={"x": (1, 64, 32, 32)}, verify=False)
    (plan,) = triune.plan(tmp_path / "model.mlpackage", chip="m2-pro")
    (other,) = triune.plan(source, chip="m2-pro")
    convs = [[op.ms for op in each.ops if op.op_type == "Conv"] for each in (plan, other)]
    assert convs[0] == pytest.approx(convs[1], rel=0.05)


def test_a_decoder_has_a_plan_of_its_prompt_and_one_of_a_token() -> None:
    prompt, token = triune.plan(smollm2_gguf(), chip="m4-max", tokens=64)
    assert prompt.title.endswith("prompt of 64 tokens")
    assert token.title.endswith("one token after 64")
    assert prompt.latency_error is not None
    assert prompt.latency_error.group == "prefill"
    assert token.latency_error is not None
    assert token.latency_error.group == "decode"
    # Of a prompt the logits of one token are computed, too.
    heads = [[op for op in each.ops if op.op_type == "MatMul"][-1].unit_ms[Unit.GPU] for each in (prompt, token)]
    assert heads[0] == pytest.approx(heads[1])
    assert token.ms < prompt.ms
    assert prompt.ms < 64 * token.ms


def test_unknown_chips_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"chip 'm99' .* M1, M1 Pro, .* M4 Max"):
        triune.plan(saved(tmp_path, NET, w=WEIGHT), chip="m99")


def test_without_a_chip_this_machine_is_planned_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, NET, w=WEIGHT)
    cpu = UnitFacts(UnitStatus(Unit.CPU, Presence.PRESENT), "Abacus 3000")
    monkeypatch.setattr(planning, "known_units", lambda: [cpu])
    with pytest.raises(UnsupportedError, match=r"Abacus 3000 .* `triune units --measure`"):
        triune.plan(path)
    monkeypatch.setattr(planning, "known_units", lambda: [replace(cpu, name="Apple M3 Max")])
    (plan,) = triune.plan(path)
    assert plan.chip == "M3 Max"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "speed"}, "no goal 'speed'; there are latency, throughput, energy"),
        ({"units": ["tpu"]}, "no unit 'tpu'; there are cpu, amx, gpu, ane"),
        ({"tokens": 0}, "0 tokens"),
        ({"function": "main"}, "one function"),
        ({"latency_limit_ms": 1.0}, "--for energy"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        triune.plan(saved(tmp_path, NET, w=WEIGHT), chip="m1", **options)


def test_a_form_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'model.pt' cannot be planned"):
        triune.plan(tmp_path / "model.pt", chip="m1")


def test_only_the_units_that_are_named(tmp_path: Path) -> None:
    (plan,) = triune.plan(saved(tmp_path, NET, w=WEIGHT), chip="m1", units=["cpu"])
    assert [each.unit for each in plan.segments] == [Unit.CPU]
