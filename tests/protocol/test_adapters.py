"""A model with LoRA adapters behind a real server, by the clients of every API that chooses one."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from support.process import Served, serve
from support.text_models import write_adapter, write_text_model
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
NAMES = ["m", "m:poet", "m:lawyer"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("models")
    folder = write_text_model(root / "m" / "1")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    write_adapter(folder / "adapters" / "poet", 1)
    write_adapter(folder / "adapters" / "lawyer", 2)
    with serve(root, ready_seconds=110) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="none", max_retries=0) as made:
        yield made


def completed(client: openai.OpenAI, name: str) -> str:
    answer = client.completions.create(
        model=name, prompt="hello", max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.model == name
    return answer.choices[0].text


def test_every_adapter_is_a_model_of_openais_api(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["m", "m:lawyer", "m:poet"]
    assert client.models.retrieve("m:poet").to_dict()["parent"] == "m"
    assert "parent" not in client.models.retrieve("m").to_dict()


def test_the_name_of_the_model_chooses_the_adapter_also_in_one_batch(client: openai.OpenAI) -> None:
    alone = [completed(client, name) for name in NAMES]
    assert len(set(alone)) == 3
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(lambda name: completed(client, name), NAMES * 3)) == alone * 3


def test_conversations_of_both_apis(client: openai.OpenAI, served: Served) -> None:
    chats = [
        client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hello"}], max_tokens=12, temperature=0
        )
        for name in NAMES
    ]
    texts = [chat.choices[0].message.content for chat in chats]
    assert len(set(texts)) == 3
    assert [client.responses.create(model=name, input="hello", max_output_tokens=12, temperature=0).output_text
            for name in NAMES] == texts  # fmt: skip
    with anthropic.Anthropic(base_url=f"http://{served.http}", api_key="none", max_retries=0) as other:
        for name, text in zip(NAMES, texts, strict=True):
            message = other.messages.create(
                model=name,
                max_tokens=12,
                messages=[{"role": "user", "content": "hello"}],
                extra_body={"temperature": 0},
            )
            assert "".join(part.text for part in message.content if part.type == "text") == text
        counted = other.messages.count_tokens(model="m:poet", messages=[{"role": "user", "content": "hello"}])
        assert counted.input_tokens == chats[0].usage.prompt_tokens  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m:pirate", "The model 'm' has no LoRA adapter 'pirate'; it has lawyer, poet"),
        ("m:", "The model 'm' has no LoRA adapter ''"),
        ("n:poet", "The model 'n:poet' does not exist"),
        (":poet", "The model ':poet' does not exist"),
    ],
)
def test_an_unknown_adapter_is_an_unknown_model(client: openai.OpenAI, name: str, message: str) -> None:
    with pytest.raises(openai.NotFoundError, match=message) as caught:
        completed(client, name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)


def generated(served: Served, **parameters: object) -> str:
    body = {"text_input": "hello", "exclude_input_in_output": True, "parameters": parameters}
    request = urllib.request.Request(f"http://{served.http}/v2/models/m/generate", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["text_output"]


def test_triton_chooses_by_lora_name(served: Served, client: openai.OpenAI) -> None:
    greedy = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    chosen = [generated(served, **greedy, **given) for given in ({}, {"lora_name": "poet"}, {"lora_name": "lawyer"})]
    assert chosen == [completed(client, name) for name in NAMES]
    with pytest.raises(urllib.error.HTTPError) as caught:
        generated(served, lora_name="pirate")
    assert caught.value.code == 400
    assert "'pirate' is unknown; this model has lawyer, poet" in caught.value.read().decode()
