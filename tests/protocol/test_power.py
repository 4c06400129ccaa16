"""Power modes and joules over HTTP, from a real server."""

import json
import queue
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from support.process import Served, serve
from support.repositories import affine, write_model
from triune.core.power import EFFECTS

ADMIN = {"admin": "secret-1"}
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "affine", v1=affine())
    with serve(folder, "--power-mode=low_power", "--http-restricted-api=power:admin=secret-1") as running:
        yield running


def ask(served: Served, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{served.http}{path}", data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)["error"]


def test_the_mode_is_told_and_changed(served: Served) -> None:
    told = ask(served, "/v2/power", headers=ADMIN)
    assert (told["mode"], told["asked"], told["reason"], told["hot_units"]) == ("low_power", "low_power", "", {})
    assert set(told["effects"]) == {mode.value for mode in EFFECTS}
    assert ask(served, "/v2/power", {"mode": "high_performance"}, ADMIN)["mode"] == "high_performance"
    assert ask(served, "/v2/power", headers=ADMIN)["mode"] == "high_performance"


def test_what_is_no_mode_is_refused_with_those_that_there_are(served: Served) -> None:
    for body, word in (
        ({"mode": "turbo"}, "there are high_performance, balanced, low_power"),
        ({}, "there is no power mode"),
        ({"mode": ["low_power"]}, "there is no power mode"),
        ({"mode": "balanced", "watts": 3}, "watts"),
        ([], ""),
    ):
        code, message = ask(served, "/v2/power", body, ADMIN)
        assert code == 400
        assert word in message


def test_it_has_an_access_rule_of_its_own(served: Served) -> None:
    assert ask(served, "/v2/power")[0] == 403
    assert ask(served, "/v2/power", {"mode": "balanced"})[0] == 403
    assert ask(served, "/v2")["name"] == "triune"


def test_one_request_names_its_mode(served: Served) -> None:
    path = "/v2/models/affine/infer"
    for mode in EFFECTS:
        answer = ask(served, path, {"inputs": INPUTS, "parameters": {"triune_power_mode": mode.value}})
        assert answer["model_name"] == "affine"
    code, message = ask(served, path, {"inputs": INPUTS, "parameters": {"triune_power_mode": "turbo"}})
    assert code == 400
    assert "there is no power mode 'turbo'" in message


def test_one_request_names_its_mode_in_a_header(served: Served) -> None:
    path = "/v2/models/affine/infer"
    for body in ({"inputs": INPUTS}, {"inputs": INPUTS, "id": "x" * 100_000}):
        assert ask(served, path, body, {"Triune-Power-Mode": "low_power"})["model_name"] == "affine"
        code, message = ask(served, path, body, {"Triune-Power-Mode": "turbo"})
        assert code == 400
        assert "there is no power mode 'turbo'" in message
    own = {"inputs": INPUTS, "parameters": {"triune_power_mode": "balanced"}}
    assert ask(served, path, own, {"Triune-Power-Mode": "turbo"})["model_name"] == "affine"


def test_one_call_names_its_mode_in_metadata(served: Served) -> None:
    x = grpcclient.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    with grpcclient.InferenceServerClient(served.grpc) as client:
        answer = client.infer("affine", [x], headers={"triune-power-mode": "low_power"})
        assert answer.as_numpy("y") is not None
        with pytest.raises(InferenceServerException, match="there is no power mode 'turbo'"):
            client.infer("affine", [x], headers={"triune-power-mode": "turbo"})
        outcomes: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: outcomes.put(error or result), headers={"triune-power-mode": "turbo"})
        client.async_stream_infer("affine", [x])
        assert "there is no power mode 'turbo'" in str(outcomes.get(timeout=30))
        client.stop_stream()


def test_an_answer_says_joules_if_asked(served: Served) -> None:
    body = {"inputs": INPUTS, "parameters": {"triune_energy": True}}
    parameters = ask(served, "/v2/models/affine/infer", body)["parameters"]
    assert parameters["triune_unit"] == "cpu"
    assert parameters["triune_energy"] in ("measured", "estimated", "unavailable")
    assert ("triune_joules" in parameters) != ("triune_energy_reason" in parameters)
    x = grpcclient.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    with grpcclient.InferenceServerClient(served.grpc) as client:
        answer = client.infer("affine", [x], parameters={"triune_energy": True}).get_response()
    assert answer.parameters["triune_energy"].string_param == parameters["triune_energy"]


def test_statistics_say_joules_or_why_there_are_none(served: Served) -> None:
    ask(served, "/v2/models/affine/infer", {"inputs": INPUTS})
    (entry,) = ask(served, "/v2/models/affine/stats")["model_stats"]
    energy = entry["triune"]["energy"]
    assert energy or entry["inference_count"]
    for each in energy:
        assert each["unit"] == "cpu"
        assert each["kind"] in ("measured", "estimated", "unavailable")
        assert each["reason"] if each["kind"] == "unavailable" else each["joules"] >= 0
