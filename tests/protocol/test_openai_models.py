"""The APIs for text with real models, and every block of their page."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import openai
import pytest

from support.process import Served

PAGE = (Path(__file__).parents[2] / "docs/openai.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TOLD = {
    "max_tokens=40": r"\w",
    "Anthropic": r"\b4\b",
    "/v1/embeddings": r'"embedding":\[',
    "response_format": r"\w",
    "tool_choice": r"^weather \w",
    "sequences/import": r"Paris",
    '"triune": true': r'"unit":"\w+".*Paris',
    '"echo": true': r'"token_logprobs":\[null,-',
}


@pytest.fixture
def served(real_models: Served) -> Served:
    pytest.importorskip("openvino")
    return real_models


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{served.http}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)])
def test_block(served: Served, language: str, code: str) -> None:
    code = code.replace("localhost:8000", served.http)
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{''.join(served.lines)}"
    (expected,) = [pattern for words, pattern in TOLD.items() if words in code][-1:]
    assert re.search(expected, result.stdout), result.stdout


def greedy(**fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "temperature": 0, **fields}


def test_both_forms_of_an_answer_are_one(client: openai.OpenAI) -> None:
    asked = greedy(messages=[{"role": "user", "content": "What is 2+2?"}], max_tokens=24)
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=1)
    text = whole.choices[0].message.content
    streamed = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(streamed)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    # The second request finds the beginning of its prompt in the cache.
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    content = logprobs.content or []
    assert len(content) == whole.usage.completion_tokens
    assert all(each.token == each.top_logprobs[0].token and each.logprob <= 0 for each in content)
    assert b"".join(bytes(each.bytes or ()) for each in content).decode() == text


def test_a_text_and_its_tokens_are_one_prompt(client: openai.OpenAI, served: Served) -> None:
    # Six answers at once are rounded in other ways than one, and soon choose other words.
    text = client.completions.create(**greedy(prompt="The capital of France is", max_tokens=2))
    assert text.choices[0].text.startswith(" Paris")
    several = client.completions.create(**greedy(prompt=["The capital of France is"] * 3, n=2, max_tokens=2, seed=1))
    assert {choice.text for choice in several.choices} == {text.choices[0].text}
    stopped = client.completions.create(**greedy(prompt="The capital of France is", max_tokens=6, stop=["ris"]))
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (" Pa", "stop")


def test_all_apis_give_the_same_answer(client: openai.OpenAI, served: Served) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is 2+2?"}]
    chat = client.chat.completions.create(**greedy(messages=messages, max_tokens=24)).choices[0].message.content
    response = client.responses.create(**greedy(input=messages, max_output_tokens=24))
    assert response.output_text == chat
    with anthropic.Anthropic(base_url=f"http://{served.http}", api_key="none") as other:
        message = other.messages.create(
            model="smollm2", max_tokens=24, messages=messages, extra_body={"temperature": 0}
        )
        counted = other.messages.count_tokens(model="smollm2", messages=messages)
    assert message.content[0].text == chat  # type: ignore[union-attr]
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def metric(served: Served, name: str) -> float:
    with urllib.request.urlopen(f"http://{served.metrics}/metrics", timeout=60) as response:
        text = response.read().decode()
    (value,) = re.findall(rf'^{name}{{[^}}]*model="smollm2"[^}}]*}} (\S+)$', text, re.MULTILINE)
    return float(value)


def test_a_client_that_leaves_ends_its_sequences(client: openai.OpenAI, served: Served) -> None:
    asked = greedy(prompt="Once upon a time", max_tokens=8000, n=3, extra_body={"ignore_eos": True})
    stream = client.completions.create(**asked, stream=True)
    assert next(stream).choices[0].text
    # The other answers begin when the first has its first token.
    while metric(served, "triune_sequences_running") != 3:
        time.sleep(0.05)
    stream.close()
    # 8,000 tokens take minutes, and the test no longer than the timeout of all tests.
    while metric(served, "triune_sequences_running"):
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "8192.*9031"),
        ({"messages": [{"role": "user", "content": "x"}], "logit_bias": {"49152": 1}}, "49152"),
        ({"messages": [{"role": "user", "content": "x"}], "stop": [""]}, "empty"),
        ({"messages": [{"role": "user", "content": "x"}], "guided_regex": "("}, "regex"),
        ({"messages": [{"role": "user", "content": "x"}], "min_tokens": 9, "max_tokens": 3}, "min_tokens"),
    ],
)
def test_what_the_engine_refuses(client: openai.OpenAI, fields: dict[str, Any], words: str) -> None:
    for is_stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=words):
            client.post("/chat/completions", body=greedy(**fields, stream=is_stream), cast_to=object)


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten is on the rug.", "The stock market fell."]
    found = client.embeddings.create(model="all-minilm-l6-v2", input=texts)
    vectors = np.array([each.embedding for each in found.data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-3)
    similarities = vectors @ vectors.T
    assert similarities[0, 1] > 0.5 > similarities[0, 2]
    numbers = client.embeddings.create(model="all-minilm-l6-v2", input=texts, encoding_format="float")
    np.testing.assert_allclose(np.array([each.embedding for each in numbers.data]), vectors, atol=1e-2)
    assert [each.id for each in client.models.list()] == ["all-minilm-l6-v2", "smollm2", "whisper-tiny.en"]
    with pytest.raises(openai.BadRequestError, match="does not"):
        client.embeddings.create(model="smollm2", input="x")
    with pytest.raises(openai.BadRequestError, match="does not"):
        client.completions.create(model="all-minilm-l6-v2", prompt="x")


def test_a_text_is_as_probable_as_a_prompt_as_it_was_as_an_answer(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "smollm2", "logprobs": 3, "temperature": 0}
    prompt = "The capital of France is"
    answer = client.completions.create(**asked, prompt=prompt, max_tokens=12).choices[0]
    scored = client.completions.create(**asked, prompt=prompt + answer.text, echo=True, max_tokens=0).choices[0]
    assert answer.logprobs is not None
    assert scored.logprobs is not None
    own, again = answer.logprobs.token_logprobs or [], scored.logprobs.token_logprobs or []
    count = len(own)
    assert (scored.logprobs.tokens or [])[-count:] == answer.logprobs.tokens
    # One step reads the prompt as a whole, the other one token by token: bf16 rounds differently.
    np.testing.assert_allclose(again[-count:], own, atol=0.15)
    assert again[0] is None
