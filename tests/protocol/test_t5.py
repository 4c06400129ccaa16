"""T5 behind a real server, by the clients of every API that asks for text. Its weights are random."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient

from contract.architectures.conftest import answers
from contract.architectures.hugging_face import NUM_WRITTEN, REPETITION_PENALTY
from contract.architectures.t5 import t5_tokenizer, write_t5
from contract.architectures.test_writing import SOURCES
from support.process import Served, serve
from triune.backends.transformer.backend import missing_for_transformers

if reason := missing_for_transformers():
    pytest.skip(reason, allow_module_level=True)

PROMPTS = ["the boats", "a", "he is in the rain and so are we"]
GREEDY = {"temperature": 0, "repetition_penalty": REPETITION_PENALTY, "ignore_eos": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("models")
    write_t5("t5 1.1", root / "t5" / "1")
    # In fp32, whatever units this machine has: the answers are compared with those of transformers.
    (root / "t5" / "config.pbtxt").write_text('parameters { key: "units" value { string_value: "cpu" } }')
    with serve(root, ready_seconds=110) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="none", max_retries=0) as made:
        yield made


def completed(client: openai.OpenAI, prompt: object, max_tokens: int = 12) -> openai.types.Completion:
    return client.completions.create(
        model="t5",
        prompt=prompt,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"ignore_eos": True, "repetition_penalty": REPETITION_PENALTY},
    )


def post(served: Served, path: str, body: object) -> bytes:
    request = urllib.request.Request(f"http://{served.http}/v2/models/t5/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_completions_are_what_transformers_writes(client: openai.OpenAI) -> None:
    wanted = [t5_tokenizer().decode(tokens) for tokens in answers()["t5 1.1: written"].tolist()]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda source: completed(client, list(source), NUM_WRITTEN), SOURCES * 3))
    assert [each.choices[0].text for each in found] == wanted * 3
    for each, source in zip(found, SOURCES * 3, strict=True):
        assert each.usage is not None
        assert (each.usage.prompt_tokens, each.usage.completion_tokens) == (len(source), NUM_WRITTEN)


def test_a_stream_and_triton_give_the_same_text(client: openai.OpenAI, served: Served) -> None:
    wanted = [completed(client, prompt).choices[0].text for prompt in PROMPTS]
    assert len(set(wanted)) == len(PROMPTS)
    for prompt, text in zip(PROMPTS, wanted, strict=True):
        stream = client.completions.create(
            model="t5",
            prompt=prompt,
            max_tokens=12,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True, "repetition_penalty": REPETITION_PENALTY},
        )
        assert "".join(part.choices[0].text for part in stream if part.choices) == text
        body = {"text_input": prompt, "exclude_input_in_output": True, "parameters": {**GREEDY, "max_tokens": 12}}
        assert json.loads(post(served, "generate", body))["text_output"] == text
        events = post(served, "generate_stream", {**body, "stream": True}).decode().split("\n\n")
        assert "".join(json.loads(event.removeprefix("data: "))["text_output"] for event in events if event) == text


def test_decoupled_grpc_streams_it(client: openai.OpenAI, served: Served) -> None:
    found: list[str] = []
    errors: list[object] = []

    def receive(result: grpcclient.InferResult | None, error: object) -> None:
        if error is not None or result is None:
            errors.append(error)
        elif result.as_numpy("text_output") is not None:
            found.append(result.as_numpy("text_output")[0].decode())

    text = grpcclient.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([PROMPTS[0].encode()], np.object_))
    stream = grpcclient.InferInput("stream", [1], "BOOL")
    stream.set_data_from_numpy(np.array([True]))
    sampling = grpcclient.InferInput("sampling_parameters", [1], "BYTES")
    sampling.set_data_from_numpy(np.array([json.dumps({**GREEDY, "max_tokens": 12}).encode()], np.object_))
    with grpcclient.InferenceServerClient(served.grpc) as triton:
        triton.start_stream(receive)
        triton.async_stream_infer("t5", [text, stream, sampling])
        triton.stop_stream()
    assert not errors
    assert "".join(found) == completed(client, PROMPTS[0]).choices[0].text


def test_a_conversation_is_refused_with_the_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="chat template"):
        client.chat.completions.create(model="t5", messages=[{"role": "user", "content": "hello"}])


def test_prompts_that_the_encoder_does_not_read_are_refused(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="length is 512 tokens.*your prompt has 513 tokens"):
        completed(client, [5] * 513)
    # The answer's tokens do not count among those of the prompt.
    longest = completed(client, [5] * 512)
    assert longest.usage is not None
    assert (longest.usage.prompt_tokens, longest.usage.completion_tokens) == (512, 12)
    with pytest.raises(openai.BadRequestError):
        completed(client, [])
    body = {"text_input": "xyz " * 200, "parameters": {"max_tokens": 4}}
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(served, "generate", body)
    assert caught.value.code == 400
    assert "the model's encoder reads 1 to 512" in caught.value.read().decode()
    assert completed(client, PROMPTS[0]).choices[0].text
