"""An answer begins at one server and goes on at another one."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from support.process import Served, serve
from support.text_models import write_adapter, write_text_model
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

CONTEXT = 2000
ASKED: dict[str, Any] = {
    "model": "tiny",
    "prompt": "It begins here, and ",
    "max_tokens": 1200,
    "temperature": 0,
    "extra_body": {"ignore_eos": True, "logit_bias": {str(token): -100 for token in range(128, 260)}},
}


def write(folder: Path) -> Path:
    """A repository with a tiny LLaMA and an adapter, whose answers are the same wherever they are computed."""
    version = write_text_model(folder / "tiny" / "1", max_position_embeddings=CONTEXT)
    write_adapter(version / "adapters" / "poet")
    template = {"chat_template": "{% for each in messages %}{{ each.content }}\n{% endfor %}"}
    (version / "tokenizer_config.json").write_text(json.dumps(template))
    given = {"units": "cpu", "reproducible": "true"}
    lines = [f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in given.items()]
    (folder / "tiny" / "config.pbtxt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """Two servers of one model. The second one asks for a key."""
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "there"))
    key = there / "keys"
    key.write_text("secret\n")
    with (
        serve(write(here)) as first,
        serve(write(there / "models"), f"--api-key-file={key}") as second,
    ):
        yield first, second


def post(served: Served, path: str, body: bytes = b"", key: str = "secret") -> bytes:
    request = urllib.request.Request(
        f"http://{served.http}/v1/{path}", body, {"Authorization": f"Bearer {key}"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def refused(served: Served, path: str, body: bytes = b"", key: str = "secret") -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(served, path, body, key)
    return caught.value.code, json.loads(caught.value.read())["error"]["message"]


def events(data: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="secret")


def begun(served: Served, **changes: Any) -> tuple[str, str, bytes]:
    """The id of a stream, what it told until it was exported, and the exported bytes."""
    text, exported, reason, name = "", b"", None, ""
    for chunk in client(served).completions.create(**ASKED | changes, stream=True):
        name = chunk.id
        exported = exported or post(served, f"sequences/{name}/export")
        text += chunk.choices[0].text
        reason = chunk.choices[0].finish_reason
    assert reason == "moved"
    return name, text, exported


@pytest.mark.parametrize("model", ["tiny", "tiny:poet"])
def test_an_answer_goes_on_at_another_server(servers: tuple[Served, Served], model: str) -> None:
    here, there = servers
    whole = client(here).completions.create(**ASKED | {"model": model})
    name, text, exported = begun(here, model=model)
    assert 0 < len(text) < len(whole.choices[0].text)
    rest = events(post(there, "sequences/import?include_usage=true", exported))
    assert {each["id"] for each in rest} == {name}
    assert text + "".join(each["choices"][0]["text"] for each in rest[:-1]) == whole.choices[0].text
    assert rest[-2]["choices"][0]["finish_reason"] == "length"
    assert rest[-1]["usage"]["completion_tokens"] == ASKED["max_tokens"]
    assert rest[-1]["usage"]["prompt_tokens"] == whole.usage.prompt_tokens
    assert whole.choices[0].text.endswith(
        json.loads(post(there, "sequences/import?stream=false", exported))["choices"][0]["text"]
    )
    assert refused(here, f"sequences/{name}/export")[0] == 404


def test_a_chat_with_a_schema_goes_on_as_a_chat(servers: tuple[Served, Served]) -> None:
    here, there = servers
    schema = {"type": "array", "items": {"enum": [*range(10)]}, "minItems": 300, "maxItems": 300}
    form = {"type": "json_schema", "json_schema": {"name": "list", "schema": schema}}
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Count."}], "response_format": form, "seed": 4}
    asked |= {"logit_bias": {str(ord(each)): -100 for each in " \n\r\t"}}
    text, exported, reason = "", b"", None
    for chunk in client(here).chat.completions.create(**asked, stream=True):
        exported = exported or post(here, f"sequences/{chunk.id}/export")
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason
    assert reason == "moved"
    rest = events(post(there, "sequences/import", exported))
    assert {each["object"] for each in rest} == {"chat.completion.chunk"}
    text += "".join(each["choices"][0]["delta"].get("content") or "" for each in rest)
    assert rest[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(json.loads(text)) == 300


def test_what_is_wrong_is_told(servers: tuple[Served, Served]) -> None:
    here, there = servers
    _, _, exported = begun(here)
    assert refused(there, "sequences/import", exported, key="wrong")[0] == 401
    assert refused(there, "sequences/cmpl-1/export", key="wrong")[0] == 401
    assert "no stream of one answer with the id 'cmpl-1'" in refused(here, "sequences/cmpl-1/export")[1]
    assert "takes no options" in refused(here, "sequences/cmpl-1/export", b'{"form": "int8"}')[1]
    assert "takes 'stream' and 'include_usage'" in refused(there, "sequences/import?steam=true", exported)[1]
    for body, message in [
        (b"", "it has 0 bytes"),
        (b'{"prompt": "a"}' * 10, "does not begin with 'TRIUNESQ'"),
        (exported[:-1], "by its sizes it should have"),
        (exported[:-1] + bytes([exported[-1] ^ 1]), "its checksum is wrong"),
        (os.urandom(1 << 16), "does not begin with"),
    ]:
        assert refused(there, "sequences/import", body)[0] == 400
        assert message in refused(there, "sequences/import", body)[1]
    assert events(post(there, "sequences/import", exported))[-1]["choices"][0]["finish_reason"] == "length"


def test_other_weights_are_refused(servers: tuple[Served, Served], tmp_path: Path) -> None:
    _, _, exported = begun(servers[0])
    write_text_model(tmp_path / "tiny" / "1", fill=0.5, max_position_embeddings=CONTEXT)
    with serve(tmp_path) as other:
        status, message = refused(other, "sequences/import", exported)
    assert status == 400
    assert "import it where the same files are served" in message
