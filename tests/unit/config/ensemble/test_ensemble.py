"""Steps of a config, beside what tests/conformance/triton_qa/test_ensemble_configs.py asks of a server."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.configs import model_config
from support.ensembles import ensemble
from support.steps import fp32
from triune.config.ensemble.agreement import check_agreement, with_labels
from triune.config.ensemble.steps import translate_steps
from triune.config.model_config import ModelConfig
from triune.config.parse import parse_text
from triune.core.datatypes import DataType
from triune.core.errors import InvalidArgumentError, UnsupportedError

X, Y = {"x": "x"}, {"y": "y"}


def steps_of(*steps: tuple[str, dict[str, str], dict[str, str]], **options: object) -> object:
    message = parse_text(ensemble(steps, **options).encode(), "config.pbtxt")  # pyright: ignore[reportArgumentType]
    message.name = "e"
    return translate_steps(message)


def test_steps() -> None:
    first, second = translate_steps(
        parse_text(ensemble([("a", X, {"y": "t"}), ("b:3", {"x": "t"}, Y)]).encode(), "config.pbtxt")
    )
    assert (first.number, first.model, first.version, first.inputs, first.outputs) == (0, "a", None, X, {"y": "t"})
    assert (second.number, second.version) == (1, 3)
    assert str(second) == "step 1, model 'b'"


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        ([("a", X, {"y": "x"})], {}, "ensemble tensor 'x' can appear in an output map only once .* it is an input"),
        (
            [("a", X, Y), ("b", {"x": "r"}, {"y": "s"}), ("c", {"x": "s"}, {"y": "r"})],
            {},
            "ensemble tensor 'r' is unused in ensemble 'e': step 2 never runs",
        ),
        (
            [("a", X, Y), ("b", {"x": "r"}, {"y": "s"}), ("c", {"x": "s"}, {"y": "z"})],
            {"outputs": ("y", "z")},
            "output 'z' for ensemble 'e' is not written: at least one of its depending tensors, 'r', is not connected",
        ),
        ([("a", X, Y), ("b", X, {"y": "t"})], {}, "'t' is unused in ensemble 'e': step 1 writes it"),
        ([("a", X, Y), ("b", X, Y)], {}, "'y' can appear in an output map only once for ensemble 'e' step 1; step 0"),
    ],
)
def test_tensors_that_lead_nowhere(
    steps: list[tuple[str, dict[str, str], dict[str, str]]], options: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        steps_of(*steps, **options)


def test_an_input_may_be_an_output() -> None:
    assert steps_of(("a", X, Y), outputs=("x", "y"))


def config(name: str, **changes: object) -> ModelConfig:
    made = model_config(fp32("x", dims=(4,)), fp32("y", dims=(4,)), name=name, max_batch_size=4)
    return replace(made, **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda: config("m", is_decoupled=True), UnsupportedError, r"in ensemble e, model m is decoupled \(step 0\)"),
        (
            lambda: config("m", outputs={"y": replace(fp32("y", dims=(4,))[0], datatype=DataType.FP16)}),
            InvalidArgumentError,
            r"tensor y: inconsistent data type: TYPE_FP32 is inferred from model e while TYPE_FP16 .*\(step 0\)",
        ),
        (
            lambda: config("m", inputs={"x": replace(fp32("x", dims=(5,))[0])}),
            InvalidArgumentError,
            r"ensemble tensor x: inconsistent shape: \[-1,4\] is inferred from model e while \[-1,5\] .*\(step 0\)",
        ),
    ],
)
def test_models_that_do_not_fit(change: Callable[[], ModelConfig], error: type[Exception], words: str) -> None:
    steps = translate_steps(parse_text(ensemble([("m", X, Y)]).encode(), "config.pbtxt"))
    check_agreement(config("e"), steps, [config("m")])
    with pytest.raises(error, match=words):
        check_agreement(config("e"), steps, [change()])


def test_an_input_that_may_be_left_out_need_not_be_mapped() -> None:
    steps = translate_steps(parse_text(ensemble([("m", X, Y)]).encode(), "config.pbtxt"))
    w = replace(fp32("w")[0], is_optional=True)
    check_agreement(config("e"), steps, [config("m", inputs={**config("m").inputs, "w": w})])


def test_labels() -> None:
    steps = translate_steps(parse_text(ensemble([("m", X, Y)]).encode(), "config.pbtxt"))
    labelled = config("m", outputs={"y": replace(fp32("y")[0], labels=("a", "b"))})
    assert with_labels(config("e"), steps, [labelled]).outputs["y"].labels == ("a", "b")
    own = config("e", outputs={"y": replace(fp32("y")[0], labels=("mine",))})
    assert with_labels(own, steps, [labelled]).outputs["y"].labels == ("mine",)
