"""`triune.convert`: what the command line converts, from Python."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import triune
import triune.coreml.verify
from support.lowered import FLOAT, model_of
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError
from triune.graph.verify import Verdict


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=-1)]
    onnx.save(model_of(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])]), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("target", ["out.mlpackage", "out.aimodel"])
@pytest.mark.parametrize("shape", ["1..8,4", ((1, 8), 4)])
def test_there_and_back(source: Path, target: str, shape: Any) -> None:
    told: list[str] = []
    done = triune.convert(source, source.with_name(target), shapes={"x": shape}, verify=True, report=told.append)
    assert done.path == source.with_name(target)
    assert done.verdict is Verdict.RIGHT
    assert [each.name for each in done.outputs] == ["y"]
    assert "running both" in told
    back = triune.convert(str(done.path), str(source.with_name("back.onnx")), verify=True)
    assert back.verdict is Verdict.RIGHT
    given = np.float32([[1, 2, 3, 4]])
    answers = [triune.load(path, "cpu").run({"x": given})["y"] for path in (source, done.path, back.path)]
    np.testing.assert_allclose(answers[1:], [answers[0]] * 2, rtol=1e-5)


@pytest.mark.parametrize("target", ["out.mlpackage", "out.aimodel"])
def test_a_factor_of_a_reciprocal_is_no_quotient(tmp_path: Path, target: str) -> None:
    nodes = [
        helper.make_node("Reciprocal", ["q"], ["r"]),
        helper.make_node("Mul", ["x", "r"], ["m"]),
        helper.make_node("Floor", ["m"], ["y"]),
    ]
    onnx.save(model_of(nodes, [("x", FLOAT, [2]), ("q", FLOAT, [2])], [("y", FLOAT, [2])]), tmp_path / "model.onnx")
    given = {"x": np.float32([41, 3]), "q": np.float32([41, 3])}
    done = triune.convert(tmp_path / "model.onnx", tmp_path / target, verify=True, inputs=given)
    back = triune.convert(done.path, tmp_path / "back.onnx", verify=True, inputs=given)
    assert (done.verdict, back.verdict) == (Verdict.RIGHT, Verdict.RIGHT)
    for path in (done.path, back.path):
        # 1 / 41 in fp32 is a little too small, 1 / 3 too large.
        assert triune.load(path, "cpu").run(given)["y"].tolist() == [0, 1]


def test_a_models_folder_in_a_repository_stands_for_its_newest_version(source: Path, tmp_path: Path) -> None:
    version = tmp_path / "softmax" / "3"
    version.mkdir(parents=True)
    source.rename(version / "model.onnx")
    done = triune.convert(version.parent, tmp_path / "m.aimodel", shapes={"x": "2,4"}, verify=True)
    assert (done.path, done.verdict) == (tmp_path / "m.aimodel", Verdict.RIGHT)


def test_nothing_is_compared_if_that_is_asked_for(source: Path) -> None:
    package = source.with_name("m.mlpackage")
    done = triune.convert(source, package, precision="fp16", shapes={"x": "2,4"}, layout="ane", verify=False)
    assert done.path is not None
    assert done.path.exists()
    assert done.verdict is None
    assert done.outputs == ()
    assert done.layout is not None


def test_a_large_program_in_fp16_is_raised_to_be_compared_where_nobody_asked(tmp_path: Path) -> None:
    size = 1500
    nodes, weight = [helper.make_node("MatMul", ["x", "w"], ["y"])], np.eye(size, dtype=np.float32) / 2
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, [("x", FLOAT, [1, size])], [("y", FLOAT, [1, size])], w=weight), path)
    done = triune.convert(path, tmp_path / "m.aimodel", precision="fp16")
    assert done.verdict is Verdict.RIGHT
    assert any("raised to ONNX again" in note for note in done.notes)


def test_what_is_wrong_is_not_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = triune.coreml.verify.verify_lowered

    def verify_wrongly(model: Any, *others: Any) -> Any:
        model.graph.node[0].op_type = "LogSoftmax"
        return verify(model, *others)

    monkeypatch.setattr(triune.coreml.verify, "verify_lowered", verify_wrongly)
    target = source.with_name("m.mlpackage")
    done = triune.convert(source, target, shapes={"x": (2, 4)}, verify=True)
    assert done.path is None
    assert done.verdict is Verdict.WRONG
    assert not target.exists()


@pytest.mark.parametrize(
    ("target", "options", "kind", "told"),
    [
        ("m.mlpackage", {"precision": "fp8"}, InvalidArgumentError, "no precision 'fp8'; there are 'fp32', 'fp16'"),
        ("m.mlpackage", {"layout": "best"}, InvalidArgumentError, "no layout 'best'"),
        ("m.mlpackage", {"shapes": {"q": (1, 4)}}, InvalidArgumentError, "no input 'q'"),
        ("m.mlpackage", {"shapes": {"x": (1, "4")}}, InvalidArgumentError, "dimension '4' of the shape of 'x'"),
        ("m.mlpackage", {"shapes": {"x": [(1, 4, 5)]}}, InvalidArgumentError, r"dimension \(1, 4, 5\)"),
        ("m.mlpackage", {"inputs": {"x": np.zeros((1, 4))}}, InvalidArgumentError, "ask for one of them"),
        ("m.onnx", {"states": {"x": "y"}}, InvalidArgumentError, "are for .mlpackage and .aimodel"),
        ("m.mlpackage", {"images": {"x": "rgb24"}}, InvalidArgumentError, "are for .aimodel"),
        ("m.mlpackage", {"functions": {"main": "b.onnx"}}, InvalidArgumentError, "function 'main' is named twice"),
        ("m.mlpackage", {"function": "a b"}, InvalidArgumentError, "no function called 'a b'"),
        ("m.mlpackage", {"function": "f", "system": "iOS17"}, InvalidArgumentError, "needs iOS18, .* run on iOS17"),
        ("m.mlpackage", {"states": {"x": "y"}, "check": True}, InvalidArgumentError, "one function without states"),
        ("m.aimodel", {"system": "iOS17"}, InvalidArgumentError, "the oldest system .--target. is for .mlpackage"),
        ("m.aimodel", {"functions": {"main": "b.onnx"}}, InvalidArgumentError, "function 'main' is named twice"),
        ("m.aimodel", {"functions": {"": "b.onnx"}}, InvalidArgumentError, "a function is to have the name ''"),
        ("m.aimodel", {"function": "a\nb"}, InvalidArgumentError, r"a function is to have the name 'a\\nb'"),
        ("m.mlpackage", {"function": ""}, InvalidArgumentError, "a function is to have the name ''"),
        ("m.onnx", {}, InvalidArgumentError, "no conversion from 'model.onnx' to 'm.onnx'"),
        ("m.onnx", {"check": True}, InvalidArgumentError, "check is about Apple's compilers"),
    ],
)
def test_what_does_not_go(source: Path, target: str, options: Any, kind: type[TriuneError], told: str) -> None:
    with pytest.raises(kind, match=told):
        triune.convert(source, source.with_name(target), **options)
    assert not source.with_name(target).exists()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((NotFoundError, InvalidArgumentError), match="nothing.onnx"):
        triune.convert(tmp_path / "nothing.onnx", tmp_path / "m.mlpackage")
