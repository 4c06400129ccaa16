"""`triune.load` with a plan: real runtimes, in parts on each."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import triune
from support.graphs import model_of
from triune.cli import app

CHAIN = """g (float[rows,4] x) => (float[rows,4] e) <float[4,4] w = {2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 5}> {
    a = MatMul(x, w)  b = Neg(a)  c = Tanh(b)  d = MatMul(c, w)  e = Abs(d) }"""
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
"""Two rows, where the sample on which the model is checked has sixteen."""


def saved(folder: Path) -> Path:
    path = folder / "chain.onnx"
    path.write_bytes(model_of(CHAIN, opset=18).SerializeToString())
    return path


def test_a_model_cut_over_two_runtimes_gives_the_answers_of_the_whole(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core")
    path = saved(tmp_path)
    with triune.load(path, "cpu") as whole, triune.load(path, plan="cpu to b, gpu to c, cpu") as cut:
        np.testing.assert_allclose(cut.run({"x": X})["e"], whole.run({"x": X})["e"], rtol=1e-5)
        assert cut.placement is not None
        assert cut.placement.is_cut
        assert [each.unit.value for each in cut.placement.segments] == ["cpu", "gpu", "cpu"]
        assert "cut over cpu and gpu" in repr(cut)
        assert whole.placement is None


def test_a_plan_of_one_unit_is_the_whole_model(tmp_path: Path) -> None:
    with triune.load(saved(tmp_path), plan="cpu") as model:
        assert model.placement is not None
        assert not model.placement.is_cut
        assert model.run({"x": X})["e"].shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plan": "throughput: cpu to b, gpu"}, "as a server does"),
        ({"plan": "cpu", "unit": "cpu"}, "name those that it may use with units"),
        ({"plan": "cpu", "function": "main"}, "have no functions"),
        ({"chip": "m2-pro"}, "give plan, too"),
        ({"plan": "nonsense"}, "is not a unit"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(triune.InvalidArgumentError, match=words):
        triune.load(saved(tmp_path), **options)  # type: ignore[arg-type]


def test_the_command_line_tells_where_it_was_computed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    given = ["infer", str(saved(tmp_path)), "--input", f"x={tmp_path / 'x.npy'}"]
    done = CliRunner().invoke(app, [*given, "--plan", "cpu"])
    assert done.exit_code == 0, done.output
    assert "cpu (onnxruntime, fp32, CPUExecutionProvider): the whole" in done.output
    assert "not cut, since the whole belongs on 'cpu'" in done.output
