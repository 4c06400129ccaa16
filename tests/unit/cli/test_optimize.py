"""`triune optimize`, as a command, and `triune.optimize`."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import triune
from support.graphs import model_of, ops_of
from triune.cli import app
from triune.core.errors import InvalidArgumentError, NotFoundError
from triune.core.units import Unit
from triune.graph.optimizing.levels import STEPS

TEXT = """g (float[n,200] x) => (float[n,300] y) <float one = {1}> {
  a = Mul(x, one) v = Transpose(w) m = MatMul(a, v) y = Identity(m) }"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    model = model_of(TEXT, opset=20)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((300, 200), np.float32), "w"))
    onnx.save(model, tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def run(*options: str) -> str:
    done = CliRunner().invoke(app, ["optimize", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*options: str) -> str:
    done = CliRunner().invoke(app, ["optimize", *options])
    assert done.exit_code != 0
    return f"{done.output}{done.exception}"


def test_the_result_is_written(path: str, tmp_path: Path) -> None:
    text = run(path, "-o", str(tmp_path / "out.onnx"), "--level", "O1", "--explain")
    assert "4 nodes before, 1 after" in text
    assert "1 Mul" in text
    assert "output 'y': right" in text
    assert ops_of(onnx.load(tmp_path / "out.onnx")) == ["MatMul"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]


def test_in_place(path: str) -> None:
    run(path, "-o", path, "--level", "O1")
    assert ops_of(onnx.load(path)) == ["MatMul"]


def test_json(path: str, tmp_path: Path) -> None:
    found = json.loads(run(path, "-o", str(tmp_path / "out.onnx"), "--level", "O1", "--for", "amx", "--json"))
    assert (found["nodes_before"], found["nodes_after"], found["unit"]) == (4, 1, "amx")
    assert [each["verdict"] for each in found["outputs"]] == ["right"]
    assert {"fold", "neutral"} <= {each["name"] for each in found["passes"]}


def test_a_page(path: str, tmp_path: Path) -> None:
    run(path, "-o", str(tmp_path / "out.onnx"), "--level", "O1", "--explain-html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert "Transpose" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_a_size_is_fixed(path: str, tmp_path: Path) -> None:
    run(path, "-o", str(tmp_path / "out.onnx"), "--shape", "x=7,200")
    (x,) = onnx.load(tmp_path / "out.onnx").graph.input
    assert [dim.dim_value for dim in x.type.tensor_type.shape.dim] == [7, 200]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level", "O4"], "O4"),
        (["--for", "tpu"], "tpu"),
        (["--shape", "z=1"], "there is no input 'z'"),
        (["--shape", "x=7,300"], "dimension 1 of input 'x' is 200"),
        (["--input", "z=missing.npy"], "missing.npy"),
    ],
)
def test_wrong_options(path: str, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in refused(path, "-o", str(tmp_path / "out.onnx"), *options)
    assert not (tmp_path / "out.onnx").exists()


def test_wrong_files(path: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.onnx")
    assert "must end in .onnx" in refused(path, "-o", str(tmp_path / "out.bin"))
    assert "there is no" in refused(str(tmp_path / "missing.onnx"), "-o", out)
    (tmp_path / "text.onnx").write_text("not a model")
    assert "is not an ONNX model" in refused(str(tmp_path / "text.onnx"), "-o", out)
    (tmp_path / "short.onnx").write_bytes(Path(path).read_bytes()[:-1000])
    assert "cut short" in refused(str(tmp_path / "short.onnx"), "-o", out)
    (tmp_path / "model.pt").write_text("")
    assert "give a .onnx" in refused(str(tmp_path / "model.pt"), "-o", out)


def _few_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_write_that_fails_leaves_nothing(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_text("before")
    command = [sys.executable, "-m", "triune", "optimize", path, "-o", str(out), "--level", "O0"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_few_bytes, check=False)
    assert done.returncode != 0
    assert "cannot write 'out.onnx', which takes 240" in done.stderr.replace("\n", " ")
    assert out.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]


def test_in_python(path: str, tmp_path: Path) -> None:
    done = triune.optimize(path, tmp_path / "out.onnx", level="O1", unit="amx")
    assert isinstance(done, triune.Optimization)
    assert (done.num_nodes_before, done.num_nodes_after) == (4, 1)
    assert done.path == tmp_path / "out.onnx"
    wrong: Any = "O9"
    with pytest.raises(InvalidArgumentError, match="there is no level 'O9'; there are 'O0', 'O1', 'O2', 'O3'"):
        triune.optimize(path, tmp_path / "out.onnx", level=wrong)
    wrong = "tpu"
    with pytest.raises(InvalidArgumentError, match="there is no unit 'tpu'"):
        triune.optimize(path, tmp_path / "out.onnx", unit=wrong)
    with pytest.raises(NotFoundError):
        triune.optimize(tmp_path / "none.onnx", tmp_path / "out.onnx")


def test_a_package_is_raised_first(path: str, tmp_path: Path) -> None:
    triune.convert(path, tmp_path / "model.mlpackage", shapes={"x": (2, 200)})
    done = triune.optimize(tmp_path / "model.mlpackage", tmp_path / "out.onnx", level="O1")
    assert done.num_nodes_after <= done.num_nodes_before
    with triune.load(tmp_path / "out.onnx", "cpu") as model:
        assert model.run({"x": np.ones((2, 200), np.float32)})["y"].tolist() == [[200.0] * 300] * 2


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs/optimize.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "small.html").exists()


def test_the_documentation_has_all_passes() -> None:
    page = (Path(__file__).parents[3] / "docs/optimize.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| `\w+`.* \| O\d \|", line)]
    found = [
        (name, line.split("|")[2].strip(), line.split("|")[4].strip())
        for line in rows
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    units = [", ".join(unit.value for unit in Unit if unit in step.units) or "all" for step in STEPS]
    expected = [(step.name, step.level.value, words) for step, words in zip(STEPS, units, strict=True)]
    assert sorted(found) == sorted(expected)
