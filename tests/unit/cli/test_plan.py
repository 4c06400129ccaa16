"""`triune plan`, as a command."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper, parser, save
from typer.testing import CliRunner

from triune.cli import app
from triune.core.errors import InvalidArgumentError

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 64, 32, 32] x) => (float[1, 64, 32, 32] y) {
    a = Conv<pads=[1,1,1,1]>(x, w)
    s = CumSum(a, axis)
    y = Conv<pads=[1,1,1,1]>(s, w)
}"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    model = parser.parse_model(MODEL)
    constants = {"w": np.ones((64, 64, 3, 3), np.float32), "axis": np.array(1)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    save(model, tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def run(*options: str) -> str:
    done = CliRunner().invoke(app, ["plan", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_text_says_that_all_is_predicted(path: str) -> None:
    text = run(path, "--chip", "m2-pro")
    assert f"{path} on M2 Pro, for latency: predicted, not measured" in text
    assert "measurements of convolutional networks held out, half were within" in text
    assert "all on ane: impossible, it refuses 1 operation" in text
    assert "Core ML, asked for CPU and Neural Engine, would put 0 of 3 operations" in text


def test_plans_for_every_goal_stand_side_by_side(path: str) -> None:
    text = run(path, "--chip", "m2-pro", "--compare")
    assert text.count("predicted") == 5
    rows = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert rows == ["latency", "throughput", "energy"]
    assert "energies: predicted; of" in text
    plans = json.loads(run(path, "--chip", "m2-pro", "--compare", "--json"))["plans"]
    found = {each["for"]: each for each in plans}
    assert list(found) == ["latency", "throughput", "energy"]
    assert found["latency"]["ms"] <= found["energy"]["ms"] <= 2 * found["latency"]["ms"]
    assert found["energy"]["joules"] <= found["latency"]["joules"]
    assert found["throughput"]["period_ms"] <= found["latency"]["ms"]


def test_a_goal_without_a_plan_says_why_beside_the_others(path: str) -> None:
    text = run(path, "--chip", "m2-pro", "--compare", "--latency-limit", "1us")
    assert "for energy: no plan of" in text
    assert "raise --latency-limit" in text
    with pytest.raises(InvalidArgumentError, match="leave --for energy out"):
        run(path, "--chip", "m2-pro", "--compare", "--for", "energy")


def test_json(path: str) -> None:
    values = json.loads(run(path, "--chip", "m2-pro", "--for", "energy", "--latency-limit", "20ms", "--json"))
    assert values["kind"] == "predicted"
    assert values["plans"][0]["for"] == "energy"
    assert [op["op"] for each in values["plans"][0]["segments"] for op in each["ops"]] == ["Conv", "CumSum", "Conv"]


def test_a_page(path: str) -> None:
    text = run(path, "--chip", "m2-pro", "--html")
    assert text.startswith("<!doctype html>")
    assert "CumSum" in text


def test_a_pipeline(path: str) -> None:
    text = run(path, "--chip", "m2-pro", "--for", "throughput")
    assert "a second (predicted)" in text
    assert "whole calls side by side" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--html"], "not as both"),
        (["--for", "energy", "--latency-limit", "20"], "'20' cannot be read; write a time such as 20ms"),
        (["--for", "energy", "--latency-limit", "0ms"], "'0ms' cannot be read"),
        (["--shape", "x"], "--shape"),
    ],
)
def test_wrong_options(path: str, options: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(path, "--chip", "m1", *options)
