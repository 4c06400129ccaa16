"""Power modes and joules over HTTP, from a real server."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

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


def test_statistics_say_joules_or_why_there_are_none(served: Served) -> None:
    ask(served, "/v2/models/affine/infer", {"inputs": INPUTS})
    (entry,) = ask(served, "/v2/models/affine/stats")["model_stats"]
    energy = entry["triune"]["energy"]
    assert energy or entry["inference_count"]
    for each in energy:
        assert each["unit"] == "cpu"
        assert each["kind"] in ("measured", "estimated", "unavailable")
        assert each["reason"] if each["kind"] == "unavailable" else each["joules"] >= 0
