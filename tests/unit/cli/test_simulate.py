"""`triune simulate`, as a command."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

from support.repositories import write_model
from triune.cli import app
from triune.core.errors import InvalidArgumentError, NotFoundError, UnsupportedError

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
g (float[batch, SHAPE] x) => (float[batch, OUT] y) {
    t = OP(x, w)
    y = Relu(t)
}"""


def model(op: str, shape: str, out: str, weights: tuple[int, ...]) -> bytes:
    found = parser.parse_model(MODEL.replace("SHAPE", shape).replace("OUT", out).replace("OP", op))
    found.graph.initializer.append(numpy_helper.from_array(np.ones(weights, np.float32), "w"))
    onnx.checker.check_model(found)
    return found.SerializeToString()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    convolution = model("Conv<pads=[1,1,1,1]>", "64, 32, 32", "64, 32, 32", (64, 64, 3, 3))
    write_model(folder, "conv", "max_batch_size: 4 dynamic_batching { }", v1=convolution)
    product = model("MatMul", "tokens, 512", "tokens, 512", (512, 512))
    write_model(folder, "product", "max_batch_size: 2 dynamic_batching { }", v1=product)
    write_model(folder, "steps", 'platform: "ensemble"', v1=b"")
    return folder


def run(repository: Path, *options: str, chip: str = "m2-pro") -> str:
    command = ["simulate", "--repository", str(repository), "--chip", chip, *options]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


RANDOM = [
    "--arrivals=conv=poisson:3:2",
    "--arrivals=product=poisson:1",
    "--size=tokens=64",
    "--load=60%",
    "--seconds=0.02",
]


def test_text_says_that_all_is_simulated(repository: Path) -> None:
    text = run(repository, *RANDOM)
    assert "on M2 Pro: simulated, not measured" in text
    for name in ("triune", "amx alone", "gpu alone", "ane alone", "round robin", "least loaded"):
        assert f"│ {name}" in text
    assert "no schedule computes more than" in text
    assert "measurements of convolutional networks held out, half of such predictions were within" in text


def test_a_load_is_a_share_of_what_can_be_computed(repository: Path) -> None:
    values = json.loads(run(repository, *RANDOM, "--json", "--no-compare"))
    assert values["kind"] == "simulated"
    (own,) = values["results"]
    rows = own["total"]["num_rows"]
    assert rows / 0.02 == pytest.approx(0.6 * values["capacity_rows"], rel=0.2)
    assert {part["model"] for part in own["parts"]} == {"conv", "product"}
    assert json.loads(run(repository, *RANDOM, "--json", "--no-compare")) == values
    assert json.loads(run(repository, *RANDOM, "--seed=1", "--json", "--no-compare")) != values


def test_a_latency_objective_of_the_config_is_obeyed(repository: Path, tmp_path: Path) -> None:
    data = (repository / "conv/1/model.onnx").read_bytes()
    objective = 'parameters { key: "latency_objective_ms" value { string_value: "0.001" } }'
    write_model(tmp_path, "conv", f"max_batch_size: 4 dynamic_batching {{ }} {objective}", v1=data)
    options = ["--arrivals=conv=poisson:1:4", "--load=50%", "--seconds=0.02", "--json", "--no-compare"]
    rows = [
        json.loads(run(folder, *options))["results"][0]["parts"][0]["rows_per_batch"]
        for folder in (repository, tmp_path)
    ]
    assert rows[0] == 4
    assert rows[1] < 2, "cut into single rows, once their times are known"


def test_a_page(repository: Path) -> None:
    text = run(repository, *RANDOM, "--html", "--no-compare")
    assert text.startswith("<!doctype html>")
    assert '"kind": "simulated"' in text


def traced(folder: Path, *lines: str) -> str:
    (folder / "trace").write_text("".join(line + "\n" for line in lines))
    return f"--trace={folder / 'trace'}"


def test_a_trace_begins_with_its_first_request(repository: Path, tmp_path: Path) -> None:
    lines = [f'{{"at": {90 + index / 1000}, "model": "conv", "rows": 2}}' for index in range(5)]
    values = json.loads(run(repository, traced(tmp_path, *lines), "--json", "--no-compare"))
    assert values["trace_seconds"] == pytest.approx(0.004)
    assert values["results"][0]["seconds"] < 1
    assert values["results"][0]["total"]["num_rows"] == 10


def test_some_models_of_a_trace(repository: Path, tmp_path: Path) -> None:
    trace = traced(tmp_path, '{"at": 0, "model": "conv"}', '{"at": 1, "model": "gone"}', '{"at": 1, "model": "steps"}')
    values = json.loads(run(repository, trace, "--model=conv", "--json", "--no-compare"))
    assert values["num_requests"] == 1
    with pytest.raises(NotFoundError, match="no model 'gone'; it has conv, product, steps"):
        run(repository, trace)
    with pytest.raises(UnsupportedError, match="'steps' cannot be simulated: its backend is ensemble"):
        run(repository, trace, "--model=steps")
    with pytest.raises(NotFoundError, match="no request to 'product'; it has conv, gone, steps"):
        run(repository, trace, "--model=product")


def test_a_request_for_cpu_is_one_for_the_matrix_units(repository: Path, tmp_path: Path) -> None:
    trace = traced(tmp_path, '{"at": 0, "model": "conv", "unit": "cpu"}')
    values = json.loads(run(repository, trace, "--json", "--no-compare"))
    assert [part["unit"] for part in values["results"][0]["parts"]] == ["amx"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"at": 0, "model": "conv", "rows": 5}', "has 5 rows, and the server refuses more than 4, its max_batch_size"),
        ('{"at": 0, "model": "product"}', "'product' has free dimensions: give their sizes, such as --size tokens=128"),
        ("", "line 1: it is no JSON"),
    ],
)
def test_wrong_requests(repository: Path, tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(repository, traced(tmp_path, line))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either a trace .* or random arrivals"),
        (["--arrivals=conv=poisson:9", "--trace=x"], "not both"),
        (["--arrivals=conv=poisson:9", "--arrivals=conv=poisson:8"], "'conv' are given twice"),
        (["--trace=x", "--load=80%"], "a trace has its own"),
        (["--arrivals=conv=poisson:9", "--load=0.8"], r"'0\.8' cannot be read; write a share above 0 such as 80%"),
        (["--arrivals=conv=poisson:9", "--load=0%"], "'0%' cannot be read"),
        (["--arrivals=conv=poisson:9", "--size=tokens=0"], "a size is a whole number above 0"),
        (["--arrivals=conv=poisson:9", "--html", "--json"], "not as both"),
    ],
)
def test_wrong_options(repository: Path, options: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(repository, *options)


def test_an_unknown_chip_is_told_with_those_that_are_known(repository: Path) -> None:
    with pytest.raises(NotFoundError, match="chip 'm99' is not in the table of chips; it has .*M2 Pro"):
        run(repository, *RANDOM, chip="m99")
