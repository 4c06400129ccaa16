"""The parameter `plan` of a config."""

from pathlib import Path

import pytest

from support.repositories import Bench, affine, write_model
from triune.config.configure import configure, read_source
from triune.config.model_config import ModelConfig
from triune.config.plan import PlanRequest, parse_plan
from triune.config.stamps import stamp
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.units import Unit
from triune.planning.plan import Goal


@pytest.mark.parametrize(
    ("text", "goal", "stretches"),
    [
        ("latency", Goal.LATENCY, ()),
        (" energy ", Goal.ENERGY, ()),
        ("throughput:", Goal.THROUGHPUT, ()),
        ("cpu to a/b:0, amx", Goal.LATENCY, ((Unit.CPU, "a/b:0"), (Unit.AMX, None))),
        ("throughput: cpu to a, amx to b, gpu", Goal.THROUGHPUT, ((Unit.CPU, "a"), (Unit.AMX, "b"), (Unit.GPU, None))),
        ("ane", Goal.LATENCY, ((Unit.ANE, None),)),
    ],
)
def test_plans(text: str, goal: Goal, stretches: tuple[tuple[Unit, str | None], ...]) -> None:
    assert parse_plan(text) == PlanRequest(text, goal, stretches)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not a unit"),
        ("fastest", "'fastest' is not a unit"),
        ("cpu, amx", "must name the last operation of each stretch but the last"),
        ("cpu to a", "must name the last operation of each stretch but the last"),
        ("cpu to , amx", "an operation is missing after 'to'|is not a unit"),
        ("cpu to " + "x" * 5000, "cpu to x{193}... .5007 characters.' must name"),
        ("x" * 5000, "'x{200}... .5000 characters.' is not a unit"),
        ("energy: cpu to a, amx", "nothing is left to choose for least energy"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_form(text: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as error:
        parse_plan(text)
    assert "cpu to clip_40, amx" in str(error.value)


def test_a_plan_that_names_its_units_takes_no_chip_and_no_units() -> None:
    with pytest.raises(InvalidArgumentError, match="the chip 'm2-pro' beside it"):
        parse_plan("cpu to a, amx", chip="m2-pro")
    with pytest.raises(InvalidArgumentError, match="the units cpu, amx beside it"):
        parse_plan("cpu to a, amx", units=(Unit.CPU, Unit.AMX))


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }} '


def configured(path: Path, config: str) -> ModelConfig:
    write_model(path, "m", config, v1=affine())
    return configure(read_source("m", path / "m", stamp(path / "m")), 1, Bench().machine)


def test_the_units_of_a_config_are_those_of_its_plan(tmp_path: Path) -> None:
    config = configured(tmp_path, parameter("plan", "amx to a, cpu"))
    assert config.units == (Unit.AMX, Unit.CPU)
    assert config.plan is not None
    chosen = configured(tmp_path, parameter("plan", "latency") + parameter("units", "amx,cpu"))
    assert chosen.plan is not None
    assert chosen.plan.units == (Unit.AMX, Unit.CPU)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (parameter("plan_chip", "m2-pro"), "there is no 'plan'"),
        (parameter("plan", "ane to a, cpu"), "unit 'ane'"),
        (parameter("plan", "cpu to a, amx") + "instance_group { count: 2 }", "which is for one: give count: 1"),
    ],
)
def test_what_a_machine_or_a_config_does_not_allow(tmp_path: Path, config: str, words: str) -> None:
    with pytest.raises((InvalidArgumentError, UnsupportedError), match=words):
        configured(tmp_path, config)
