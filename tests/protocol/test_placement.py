"""A real server over models that are cut: answers, and what was requested, planned and observed."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

from support.graphs import model_of
from support.process import TRIUNE, Served, serve
from support.repositories import affine, write_model
from triune.cli import main

CHAIN = """g (float[rows,4] x) => (float[rows,4] e) <float[4,4] w = {2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 5}> {
    a = MatMul(x, w)  b = Neg(a)  c = Tanh(b)  d = MatMul(c, w)  e = Abs(d) }"""
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }} '


def chain() -> bytes:
    model = model_of(CHAIN, opset=18)
    for node in model.graph.node:
        node.name = f"op-{node.output[0]}"
    return model.SerializeToString()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("mlx.core")
    folder = tmp_path_factory.mktemp("models")
    batch = "max_batch_size: 8 dynamic_batching { } "
    # `gpu` is MLX on its CPU device where there is no GPU: emulated, for its answers.
    write_model(folder, "cut", batch + parameter("plan", "cpu to op-b, gpu to op-c, cpu"), v1=chain())
    write_model(folder, "pipeline", batch + parameter("plan", "throughput: cpu to op-b, gpu"), v1=chain())
    write_model(folder, "whole", batch, v1=affine())
    write_model(folder, "strange", parameter("plan", "cpu to op-x, gpu"), v1=chain())
    with serve(folder, "--exit-on-error=false") as running:
        yield running


def ask(served: Served, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://{served.http}{path}", data, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)["error"]


def expected(x: np.ndarray) -> np.ndarray:
    w = np.diag([2, 3, 4, 5]).astype(np.float32)
    return np.abs(np.tanh(-(x @ w)) @ w)


@pytest.mark.parametrize("model", ["cut", "pipeline"])
def test_clients_of_http_and_grpc_get_the_answers_of_the_whole_model(served: Served, model: str) -> None:
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for module, address in ((httpclient, served.http), (grpcclient, served.grpc)):
        with module.InferenceServerClient(address) as client:
            given = module.InferInput("x", x.shape, "FP32")
            given.set_data_from_numpy(x)
            answer = client.infer(model, [given]).as_numpy("e")
            np.testing.assert_allclose(answer, expected(x), rtol=1e-4)


def test_requested_planned_and_observed_stand_side_by_side(served: Served) -> None:
    ask(served, "/v2/models/cut/infer", {"inputs": INPUTS})
    (found,) = ask(served, "/v2/models/cut/placement")["placements"]
    assert (found["name"], found["version"], found["cut"]) == ("cut", "1", True)
    assert found["requested"] == "cpu to op-b, gpu to op-c, cpu"
    rows = found["segments"]
    assert [each["requested"] for each in rows] == ["cpu", "gpu", "cpu"]
    assert [each["planned"] for each in rows] == ["cpu", "gpu", "cpu"]
    assert [each["observed"]["unit"] for each in rows] == ["cpu", "gpu", "cpu"]
    assert [(each["first"], each["last"]) for each in rows] == [("op-a", "op-b"), ("op-c", "op-c"), ("op-d", "op-e")]
    assert [each["observed"]["runtime"] for each in rows] == ["onnxruntime", "mlx", "onnxruntime"]
    assert rows[0]["observed"]["report"] == "CPUExecutionProvider"
    assert rows[1]["observed"]["report"].startswith("MLX on its ")
    assert all(each["observed"]["executions"] >= 1 and each["observed"]["sample_ms"] > 0 for each in rows)
    assert rows[1]["observed"]["error"] is not None
    assert {each["unit"]: each["rows"] > 0 for each in found["units"]} == {"cpu": True, "gpu": True}
    # Versions, and all models together.
    assert ask(served, "/v2/models/cut/versions/1/placement")["placements"][0]["segments"][2]["operations"] == 2
    everything = {each["name"]: each for each in ask(served, "/v2/placement")["placements"]}
    assert set(everything) == {"cut", "pipeline", "whole"}
    assert not everything["whole"]["cut"]
    (whole,) = everything["whole"]["segments"]
    assert (whole["requested"], whole["operations"], whole["observed"]["unit"]) == ("cpu", None, "cpu")


def test_an_answer_tells_it_when_asked(served: Served) -> None:
    asked = {"inputs": INPUTS, "parameters": {"triune_placement": True}}
    answer = ask(served, "/v2/models/cut/infer", asked)
    told = answer["parameters"]
    assert told["triune_placement"] == "cpu to op-b, gpu to op-c, cpu"
    assert told["triune_planned_units"] == "cpu,gpu"
    assert told["triune_unit"] == "cpu,gpu"
    assert "triune_energy" not in told
    both = ask(
        served,
        "/v2/models/whole/infer",
        {"inputs": INPUTS, "parameters": {**asked["parameters"], "triune_energy": True}},
    )
    assert (both["parameters"]["triune_placement"], both["parameters"]["triune_unit"]) == ("cpu", "cpu")
    assert "triune_energy" in both["parameters"]
    code, message = ask(served, "/v2/models/cut/infer", {"inputs": INPUTS, "parameters": {"triune_placement": "yes"}})
    assert (code, "must be true or false" in message) == (400, True)
    code, message = ask(served, "/v2/models/cut/infer", {"inputs": INPUTS, "parameters": {"triune_unit": "gpu"}})
    assert (code, "cut into segments on cpu, gpu" in message) == (400, True)


def test_a_plan_that_fits_no_model_is_the_reason_of_its_state(served: Served) -> None:
    index = {each["name"]: each for each in ask(served, "/v2/repository/index", {})}
    assert "the operation 'op-x', and there is none; there are op-" in index["strange"]["reason"]
    assert ask(served, "/v2/models/strange/placement")[0] == 503
    assert ask(served, "/v2/models/nothing/placement")[0] == 404


def test_the_command_shows_it(served: Served) -> None:
    done = subprocess.run(
        [TRIUNE, "models", "--placement", "--url", served.http],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "220"},
        check=True,
    )
    assert all(word in done.stdout for word in ("requested", "planned", "observed"))
    assert "cut 1" in done.stdout
    assert "1: op-c to op-c" in done.stdout
    assert re.search(r"\d rows?", done.stdout), "what the unit of a model that is not cut has computed"
    as_json = subprocess.run(
        [TRIUNE, "models", "--placement", "--json", "--url", f"http://{served.http}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert {each["name"] for each in json.loads(as_json.stdout)["placements"]} == {"cut", "pipeline", "whole"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models"], "name a repository with --repository"),
        (["models", "--url", "localhost"], "--url is for --placement"),
        (["models", "--placement", "--repository", "."], "--placement is of a running server"),
        (["models", "--placement", "--url", "http://127.0.0.1:9"], "no server of Triune's tells its placements"),
        (["models", "--placement", "--url", "ftp://x"], "is no address of a server"),
    ],
)
def test_what_the_command_refuses(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: that the command itself comes to `main` is seen above."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["triune", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code not in (0, None)
    printed = capsys.readouterr()
    assert words in " ".join((printed.out + printed.err).split())
