"""What computes in fp16 is compared by default, for a while: wrong answers are not written."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import triune
from support.lowered import FLOAT, INT64, model_of
from triune.api import comparing, rounds
from triune.cli import app
from triune.core.errors import UnsupportedError
from triune.graph.blame import verified
from triune.graph.verify import Verdict


def save(path: Path, offset: float) -> Path:
    """(4 tanh(x) + k) - k, where k is offset / (1 + exp(-x)): fp16 has steps of 16 from 16384 on. No rule foresees
    that.
    """
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"], name="between"),
        helper.make_node("Mul", ["t", "four"], ["m"], name="product"),
        helper.make_node("Sigmoid", ["x"], ["s"], name="part"),
        helper.make_node("Mul", ["s", "offset"], ["k"], name="offset"),
        helper.make_node("Add", ["m", "k"], ["a"], name="away"),
        helper.make_node("Sub", ["a", "k"], ["y"], name="back"),
    ]
    constants = {"four": np.array(4, np.float32), "offset": np.array(offset, np.float32)}
    onnx.save(model_of(nodes, [("x", FLOAT, [3, 4])], [("y", FLOAT, [3, 4])], **constants), path)
    return path


@pytest.mark.usefixtures("converts_here")
def test_differences_of_bounded_numbers_that_fp16_cancels_compute_in_fp32(tmp_path: Path) -> None:
    """Distances to centres, |x|^2 + |c|^2 - 2 x c, are large on noise, and right there."""
    rng = np.random.default_rng(0)
    centres = (8 / (1 + np.exp(-3 - 0.1 * rng.standard_normal((5, 32))))).astype(np.float32)
    nodes = [
        helper.make_node("Sigmoid", ["z"], ["s"]),
        helper.make_node("Mul", ["s", "eight"], ["x"]),
        helper.make_node("ReduceSumSquare", ["x", "axis"], ["xx"]),
        helper.make_node("Gemm", ["x", "centres"], ["xc"], transB=1, alpha=-2.0),
        helper.make_node("Add", ["xx", "cc"], ["a"]),
        helper.make_node("Add", ["a", "xc"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Sqrt", ["r"], ["y"]),
    ]
    constants = {"eight": np.float32(8), "axis": np.array([1]), "centres": centres, "cc": (centres**2).sum(1)[None]}
    onnx.save(model_of(nodes, [("z", FLOAT, [4, 32])], [("y", FLOAT, [4, 5])], **constants), tmp_path / "m.onnx")
    done = triune.convert(tmp_path / "m.onnx", tmp_path / "m.mlpackage", precision="fp16")
    assert done.verdict is Verdict.RIGHT
    assert any("not exact enough for nearly equal numbers" in note for note in done.notes)


@pytest.mark.usefixtures("converts_here")
@pytest.mark.parametrize("target", ["m.mlpackage", "m.aimodel"])
def test_what_is_wrong_in_fp16_is_not_written_unless_it_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    # Without a second round nothing is mended.
    monkeypatch.setattr(rounds, "_ROUNDS", 1)
    source, output = save(tmp_path / "m.onnx", 40_000), tmp_path / target
    with pytest.raises(UnsupportedError, match=r"output 'y' is off by .* --keep-fp32 NODE.* --no-verify"):
        triune.convert(source, output, precision="fp16")
    assert not output.exists()
    assert triune.convert(source, output, precision="fp16", verify=False).path == output
    kept = triune.convert(source, output, precision="mixed", keep_fp32=["offset", "away", "back"])
    assert (kept.path, kept.verdict, kept.not_compared) == (output, Verdict.RIGHT, "")


@pytest.mark.usefixtures("converts_here")
def test_fp32_is_compared_on_demand_alone(tmp_path: Path) -> None:
    source = save(tmp_path / "m.onnx", 40_000)
    assert triune.convert(source, tmp_path / "m.mlpackage").verdict is None
    assert triune.convert(source, tmp_path / "m.mlpackage", verify=True).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [("SECONDS", 0.01, "not done within 0.01 s"), ("_LEAST_BYTES", 1000, "bytes of memory, and was ended")],
)
def test_a_comparison_has_limits_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, told: str
) -> None:
    monkeypatch.setattr(comparing, limit, value)
    source, package = save(tmp_path / "m.onnx", 1), tmp_path / "m.mlpackage"
    done = triune.convert(source, package, precision="fp16")
    assert done.path == package
    assert package.exists()
    assert done.verdict is None
    assert told in done.not_compared
    assert triune.convert(source, package, precision="fp16", verify=True).verdict is Verdict.RIGHT


@pytest.mark.usefixtures("converts_here")
def test_what_cannot_be_compared_is_written_and_says_so(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sub", ["i", "ten"], ["index"]),
        helper.make_node("Gather", ["rows", "index"], ["y"]),
    ]
    # The numbers that are made up are no indices.
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    model = model_of(nodes, [("i", INT64, [1])], [("y", FLOAT, [1, 2])], rows=rows, ten=np.array(10))
    onnx.save(model, tmp_path / "m.onnx")
    done = CliRunner().invoke(
        app, ["convert", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.mlpackage"), "--precision", "fp16"]
    )
    assert done.exit_code == 0
    assert "not compared ONNX Runtime does not run the model on these inputs" in done.stdout
    assert "--verify waits without a limit" in done.stdout


@pytest.mark.usefixtures("converts_here")
def test_given_inputs_are_what_is_compared(tmp_path: Path) -> None:
    source = save(tmp_path / "m.onnx", 1)
    given = {"x": np.full((3, 4), np.inf, np.float32)}
    done = triune.convert(source, tmp_path / "m.mlpackage", precision="fp16", inputs=given)
    assert [each.inputs for each in done.outputs] == ["yours"]


@pytest.mark.usefixtures("converts_here")
def test_a_note_tells_how_many_kinds_of_inputs_were_compared_in_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, package = save(tmp_path / "m.onnx", 1), tmp_path / "m.mlpackage"
    monkeypatch.setattr(verified, "_NARROW_SECONDS", -1.0)
    *_, large, note = triune.convert(source, package, precision="fp16", verify=True).notes
    assert re.match(r"8 of \d\d kinds of generated inputs were compared, since the time for that was over", note)
    assert large == "inputs larger than 8 were not compared, since the time for that was over"


@pytest.mark.usefixtures("converts_here")
def test_what_counts_elements_by_rounded_numbers_computes_in_fp32(tmp_path: Path) -> None:
    """The number of positive products: fp16 rounds some that are nearly 0 across it, so that there is one less."""
    weights = (np.random.default_rng(0).standard_normal((64, 64)) * 0.1).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Greater", ["h", "zero"], ["c"]),
        helper.make_node("NonZero", ["c"], ["y"]),
    ]
    outputs = [("y", INT64, [2, "found"]), ("h", FLOAT, [64, 64])]
    model = model_of(nodes, [("x", FLOAT, [64, 64])], outputs, w=weights, zero=np.array(0, np.float32))
    onnx.save(model, tmp_path / "count.onnx")
    done = triune.convert(tmp_path / "count.onnx", tmp_path / "count.mlpackage", precision="fp16")
    assert (done.verdict, done.not_compared) == (Verdict.RIGHT, "")
    assert "MatMul 'product'" in done.notes[0]
