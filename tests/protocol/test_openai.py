"""The unmodified `openai` client against the HTTP server, with models that answer from tables."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pydantic
import pytest

from support.table_text_model import TableEmbeddingModel, TableTextModel, TableTextModels
from support.text_server import TextServer, serve_text
from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError
from triune.engine.structured.constraint import Constraint

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ANSWERS: dict[str, Any] = {
    "capital": "Paris, of course.",
    "weather": f"Let me see.\n{CALL}\n{CALL}",
    "accent": "déjà vu ☃",
    "json": '{"name": "Rome", "people": 2750000}',
    "half": ("Half an answer", InternalError("the model failed: NaN logits")),
    "none": ("", InvalidArgumentError("temperature is 300.0; it must be between 0 and 100")),
    "defect": ("", KeyError("nobody expects this")),
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def tables() -> TableTextModels:
    return TableTextModels(
        {
            "table": TableTextModel(ANSWERS),
            "small": TableTextModel(ANSWERS, context_tokens=60),
            "raw": TableTextModel(ANSWERS, can_chat=False),
            "embedder": TableEmbeddingModel(),
            "busy": UnavailableError("too many requests wait; try again later"),
            "tensors": object(),
        }
    )


@pytest.fixture(scope="module")
def served() -> Iterator[TextServer]:
    with serve_text(tables) as running:
        yield running


@pytest.fixture
def client(served: TextServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as made:
        yield made


def model(served: TextServer, name: str = "table") -> TableTextModel:
    return served.models.models[name]


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["table", "small", "raw", "embedder"]
    assert client.models.retrieve("table").owned_by == "triune"
    for name in ("nobody", "tensors"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(name)
        assert caught.value.code == "model_not_found"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="table", messages=ask("the capital of France?"))
    assert answer.object == "chat.completion"
    assert answer.model == "table"
    assert answer.choices[0].message.content == "Paris, of course."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage is not None
    assert usage.completion_tokens == len("Paris, of course.")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens // 2
    assert "triune" not in answer.model_dump()


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="table", messages=ask("an accent"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "déjà vu ☃"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_async_client(served: TextServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none") as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="table", messages=ask("capital")) for _ in range(8))
        )
        assert {each.choices[0].message.content for each in answers} == {"Paris, of course."}
        stream = await client.completions.create(model="table", prompt="the capital", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "Paris, of course"


def test_what_is_asked_reaches_the_model(client: openai.OpenAI, served: TextServer) -> None:
    client.chat.completions.create(
        model="table",
        messages=ask("x"),
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={"65": 5},
        seed=-1,
        stop=["\n", "END"],
        max_completion_tokens=7,
        user="me",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        extra_body={
            "top_k": 40,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "ignore_eos": True,
            "stop_token_ids": [3, 4],
            "include_stop_str_in_output": True,
            "priority": 5,
            "chat_template_kwargs": {"enable_thinking": False},
        },
    )
    asked = model(served).requests[-1]
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 40, 0.05)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.1, 0.2, 1.1)
    assert (sampling.logit_bias, sampling.seed, sampling.num_logprobs) == ({65: 5}, 2**64 - 1, None)
    assert (asked.stop, asked.stop_tokens, asked.is_stop_included) == (("\n", "END"), frozenset({3, 4}), True)
    assert (asked.max_tokens, asked.min_tokens, asked.is_end_ignored, asked.priority) == (7, 2, True, 5)
    assert model(served).rendered[-1][2] == {"enable_thinking": False}


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="table", messages=ask("accent"), logprobs=True, top_logprobs=2, max_tokens=2
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert [each.token for each in content] == ["d", "é"]
    assert content[1].bytes == list("é".encode())
    assert content[0].logprob == -0.5
    assert [each.token for each in content[0].top_logprobs] == ["a", "b"]
    chunks = client.chat.completions.create(
        model="table", messages=ask("accent"), logprobs=True, max_tokens=2, stream=True
    )
    streamed = [
        each.token for chunk in chunks if chunk.choices[0].logprobs for each in chunk.choices[0].logprobs.content or ()
    ]
    assert streamed == ["d", "é"]


def test_several_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="table", messages=ask("capital"), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3 * len("Paris, of course.")
    assert answer.usage.prompt_tokens < 40
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(model="table", messages=ask("capital"), n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Paris, of course."] * 3


def test_tool_calls(client: openai.OpenAI, served: TextServer) -> None:
    answer = client.chat.completions.create(model="table", messages=ask("weather?"), tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.content == "Let me see."
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["weather", "weather"]
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Rome"}
    assert len({call.id for call in message.tool_calls}) == 2
    assert model(served).rendered[-1][1] == (WEATHER,)
    assert "[TOOL_CALLS]" in model(served).requests[-1].shown_specials
    # The conversation goes on with what the client was given.
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    client.chat.completions.create(
        model="table", messages=[*ask("weather?"), message.model_dump(), *results], tools=[WEATHER]
    )
    messages = model(served).rendered[-1][0]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert messages[2] == {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}


def test_tool_calls_in_a_stream(client: openai.OpenAI) -> None:
    text, calls, reasons = "", list[list[str]](), list[str]()
    for chunk in client.chat.completions.create(model="table", messages=ask("weather?"), tools=[WEATHER], stream=True):
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            assert call.function is not None
            if call.id is not None:
                calls.append([call.id, call.function.name or "", ""])
            calls[call.index][2] += call.function.arguments or ""
        if choice.finish_reason is not None:
            reasons.append(choice.finish_reason)
    assert text == "Let me see."
    assert [(name, arguments) for _, name, arguments in calls] == [("weather", '{"city": "Rome"}')] * 2
    assert reasons == ["tool_calls"]
    with client.chat.completions.stream(model="table", messages=ask("weather?"), tools=[WEATHER]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert len(message.tool_calls) == 2


def test_tool_choice(client: openai.OpenAI, served: TextServer) -> None:
    answer = client.chat.completions.create(
        model="table", messages=ask("weather?"), tools=[WEATHER], tool_choice="none"
    )
    assert answer.choices[0].message.content == f"Let me see.\n{CALL}\n{CALL}"
    assert model(served).rendered[-1][1] is None
    one = client.chat.completions.create(
        model="table", messages=ask("weather?"), tools=[WEATHER], parallel_tool_calls=False
    )
    assert len(one.choices[0].message.tool_calls or ()) == 1
    assert model(served).requests[-1].constraint is None
    named: Any = {"type": "function", "function": {"name": "weather"}}
    other: Any = {"type": "function", "function": {"name": "now"}}
    for choice in ("required", named):
        called = client.chat.completions.create(
            model="table", messages=ask("weather?"), tools=[other, WEATHER], tool_choice=choice
        )
        assert called.choices[0].finish_reason == "tool_calls"
        constraint = model(served).requests[-1].constraint
        assert constraint is not None
        assert ("now" in constraint.text) == (choice == "required")


class City(pydantic.BaseModel):
    name: str
    people: int


def test_forms_of_answers(client: openai.OpenAI, served: TextServer) -> None:
    parsed = client.chat.completions.parse(model="table", messages=ask("json"), response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Rome", people=2_750_000)
    constraint = model(served).requests[-1].constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"
    assert list(json.loads(constraint.text)["properties"]) == ["name", "people"]
    response = client.responses.parse(model="table", input="json", text_format=City)
    assert response.output_parsed == City(name="Rome", people=2_750_000)
    assert model(served).requests[-1].constraint == constraint
    for fields, expected in (
        ({"response_format": {"type": "json_object"}}, Constraint("json_object")),
        ({"response_format": {"type": "text"}}, None),
        ({"guided_regex": "[0-9]+"}, Constraint("regex", "[0-9]+")),
        ({"guided_choice": ["a", "b"]}, Constraint("choice", '["a","b"]')),
        ({"guided_json": {"type": "integer"}}, Constraint("json_schema", '{"type":"integer"}')),
        ({"grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"')),
    ):
        client.chat.completions.create(model="table", messages=ask("json"), extra_body=fields)
        assert model(served).requests[-1].constraint == expected


def test_parts_of_content_are_joined(client: openai.OpenAI, served: TextServer) -> None:
    parts: Any = [{"type": "text", "text": "the"}, {"type": "text", "text": "capital"}]
    client.chat.completions.create(
        model="table", messages=[{"role": "developer", "content": "short"}, {"role": "user", "content": parts}]
    )
    assert model(served).rendered[-1][0] == (
        {"role": "system", "content": "short"},
        {"role": "user", "content": "the\ncapital"},
    )


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "empty"),
    ({"messages": [{"role": "pope", "content": "x"}]}, "messages[0].role", "pope"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood", "unknown"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        "messages[0].content[0].type",
        "text only",
    ),
    ({"response_format": {"type": "xml"}}, "response_format.type", "xml"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.schema",
        "missing",
    ),
    ({"response_format": {"type": "json_object"}, "tools": [WEATHER]}, "response_format", "calling"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [WEATHER]}, "tool_choice", "'x'"),
    ({"tool_choice": "maybe", "tools": [WEATHER]}, "tool_choice", "maybe"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "a b"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"temperature": 300}, "temperature", "300"),
    ({"temperature": "warm"}, "temperature", "number"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "21"),
    ({"max_tokens": 0}, "max_tokens", "0"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "4"),
    ({"n": 129}, "n", "129"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "'x'"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "101"),
    ({"stop": [1]}, "stop", "string"),
    ({"modalities": ["audio"]}, "modalities", "text only"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "chat_template_kwargs"),
    *(
        ({"chat_template_kwargs": {name: []}}, "chat_template_kwargs", f"has '{name}', which")
        for name in ("messages", "tools", "add_generation_prompt")
    ),
    ({"chat_template_kwargs": dict.fromkeys(map(str, range(257)), 0)}, "chat_template_kwargs", "257"),
    ({"functions": []}, "functions", "tools"),
    ({"frobnicate": 1}, "frobnicate", "unknown"),
    ({"stream_options": {"include_all": True}, "stream": True}, "stream_options.include_all", "unknown"),
]


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED, ids=[f"{each[1]}-{each[2]}" for each in REFUSED])
def test_wrong_fields_are_named(client: openai.OpenAI, fields: dict[str, Any], param: str, words: str) -> None:
    body = {"model": "table", "messages": ask("x"), **fields}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param
    assert words in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=ask("x"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="small", messages=ask("x" * 100))
    assert long.value.code == "context_length_exceeded"
    assert " 60 tokens" in long.value.message
    assert " 1" in long.value.message
    with pytest.raises(openai.InternalServerError) as busy:
        client.chat.completions.create(model="busy", messages=ask("x"))
    assert busy.value.status_code == 503
    assert busy.value.response.headers["retry-after"] == "1"
    for name in ("raw", "embedder", "tensors"):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model=name, messages=ask("x"))
    with pytest.raises(openai.BadRequestError) as late:
        client.chat.completions.create(model="table", messages=ask("none"), stream=True)
    assert late.value.param == "temperature"
    with pytest.raises(openai.InternalServerError, match="KeyError"):
        client.chat.completions.create(model="table", messages=ask("defect"))
    with pytest.raises(openai.BadRequestError, match="not valid JSON"):
        client.post("/chat/completions", content=b"{", cast_to=object)


def test_unknown_paths_and_methods_have_the_same_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no POST /v1/images/generations") as unknown:
        client.images.generate(prompt="x")
    assert unknown.value.type == "invalid_request_error"
    with pytest.raises(openai.APIStatusError, match="GET /v1/completions is not allowed; use POST") as wrong:
        client.get("/completions", cast_to=object)
    assert (wrong.value.status_code, wrong.value.response.headers["allow"]) == (405, "POST")


def test_a_failure_within_a_stream_is_raised(client: openai.OpenAI) -> None:
    texts: list[str] = []
    chunks = client.chat.completions.create(model="table", messages=ask("half"), stream=True)
    with pytest.raises(openai.APIError, match="NaN logits") as caught:
        texts.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "".join(texts) == "Half an answer"
    assert caught.value.type == "server_error"


def test_report(client: openai.OpenAI) -> None:
    expected = {
        "unit": "cpu",
        "runtime": "table",
        "precision": "fp32",
        "reason": "it is the only unit of the table",
        "units": {},
        "queue_ms": 1.0,
        "first_token_ms": 2.0,
        "total_ms": 3.0,
        "energy": {"kind": "unavailable", "reason": "no metered unit computed for this request"},
    }
    extra = {"triune": True}
    answer = client.chat.completions.create(model="table", messages=ask("capital"), extra_body=extra)
    assert answer.usage is not None
    assert answer.model_dump()["triune"] == {**expected, "cached_tokens": answer.usage.prompt_tokens // 2}
    chunks = client.chat.completions.create(model="table", messages=ask("capital"), extra_body=extra, stream=True)
    assert list(chunks)[-1].model_dump()["triune"]["runtime"] == "table"


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="table", prompt="the capital", max_tokens=5, logprobs=2)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("Paris", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == list("Paris")
    assert choice.logprobs.text_offset == [0, 1, 2, 3, 4]
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[0] == {"a": -1.0, "b": -2.0}
    several = client.completions.create(
        model="table",
        prompt=["capital", list(b"accent"), "x"],
        n=2,
        max_tokens=40,  # type: ignore[list-item]
    )
    assert [each.text for each in several.choices] == ["Paris, of course."] * 2 + ["déjà vu ☃"] * 2 + ["Yes."] * 2
    assert several.usage is not None
    assert several.usage.prompt_tokens == len("capitalaccentx")
    echoed = client.completions.create(model="table", prompt=list(b"capital: "), echo=True, stop=",")
    assert (echoed.choices[0].text, echoed.choices[0].finish_reason) == ("capital: Paris", "stop")
    default = client.completions.create(model="table", prompt="capital")
    assert default.choices[0].text == "Paris, of course"


def test_the_probabilities_of_a_prompt(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "table", "prompt": ["capital", "xa"], "echo": True, "logprobs": 1, "n": 2}
    found = client.completions.create(**asked, max_tokens=5)
    assert [choice.text for choice in found.choices] == ["capitalParis"] * 2 + ["xaYes."] * 2
    for choice in found.choices:
        logprobs = choice.logprobs
        assert logprobs is not None
        assert "".join(logprobs.tokens or ()) == choice.text
        assert logprobs.text_offset == [*range(len(choice.text))]
        assert logprobs.token_logprobs is not None
        assert logprobs.top_logprobs is not None
        assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
        own = {"a": -1.0}
        assert logprobs.top_logprobs[-1] == own
        assert logprobs.token_logprobs[1] == pytest.approx(np.log(2 / 257))
        assert logprobs.top_logprobs[1] == {"a": pytest.approx(np.log(2 / 257))}
    only = client.completions.create(**asked, max_tokens=0, best_of=3)
    assert [(choice.text, choice.finish_reason) for choice in only.choices] == [("capital", "length")] * 2 + [
        ("xa", "length")
    ] * 2
    assert only.choices[0].logprobs is not None
    assert only.choices[0].logprobs.token_logprobs is not None
    assert only.choices[0].logprobs.token_logprobs[2] == pytest.approx(np.log(1 / 257)), "a p"
    assert len(only.choices[0].logprobs.token_logprobs) == 7
    assert only.usage is not None
    assert (only.usage.prompt_tokens, only.usage.completion_tokens) == (9, 0)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.completions.create(**asked | {"echo": False}, max_tokens=0)


def test_the_probabilities_of_a_prompt_in_a_stream(client: openai.OpenAI) -> None:
    prompt = "capital " * 100
    chunks = [
        chunk.choices[0]
        for chunk in client.completions.create(
            model="table", prompt=prompt, echo=True, logprobs=20, max_tokens=5, stream=True
        )
    ]
    assert "".join(chunk.text for chunk in chunks) == prompt + "Paris"
    logprobs = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
    assert "".join(token for each in logprobs for token in each.tokens or ()) == prompt + "Paris"
    assert [offset for each in logprobs for offset in each.text_offset or ()] == [*range(len(prompt) + 5)]
    assert max(len(each.tokens or ()) for each in logprobs) <= 16, "a long prompt comes in parts"


def test_the_best_of_several_completions(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "table", "prompt": ["capital", "accent"], "n": 2, "best_of": 4, "max_tokens": 5}
    found = client.completions.create(**asked, logprobs=1)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in found.choices] == ["Paris", "Paris", "déjà ", "déjà "]
    logprobs = [choice.logprobs.token_logprobs for choice in found.choices if choice.logprobs is not None]
    assert logprobs == [[-0.5 + index / 16] * 5 for index in (3, 2, 3, 2)]
    assert found.usage is not None
    assert found.usage.completion_tokens == 2 * 4 * 5, "those that are not returned were computed, too"
    plain = client.completions.create(**asked | {"n": 1}, echo=True)
    assert [(choice.text, choice.logprobs) for choice in plain.choices] == [
        ("capitalParis", None),
        ("accentdéjà ", None),
    ]


def test_completions_in_a_stream(client: openai.OpenAI) -> None:
    texts = ["", ""]
    reasons: list[str] = []
    for chunk in client.completions.create(
        model="table", prompt=["capital", "accent"], echo=True, stream=True, max_tokens=9
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
        reasons += [each.finish_reason for each in chunk.choices if each.finish_reason]
    assert texts == ["capitalParis, of", "accentdéjà vu ☃"]
    assert sorted(reasons) == ["length", "stop"]


@pytest.mark.parametrize(
    "fields",
    [
        {"suffix": "x"},
        {"best_of": 2, "n": 3},
        {"best_of": 2, "stream": True},
        {"best_of": 129},
        {"best_of": 128, "prompt": ["a", "b", "c"]},
        {"prompt": []},
        {"prompt": [[]], "echo": True},
        {"prompt": "", "echo": True, "logprobs": 1},
        {"prompt": [[]], "echo": True, "logprobs": 1},
        {"prompt": ["a", 1]},
    ],
)
def test_refused_completions(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.post("/completions", body={"model": "table", "prompt": "x", **fields}, cast_to=object)


def test_responses(client: openai.OpenAI, served: TextServer) -> None:
    answer = client.responses.create(model="table", input="the capital", instructions="be brief", max_output_tokens=5)
    assert answer.output_text == "Paris"
    assert answer.status == "incomplete"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    assert [each["role"] for each in model(served).rendered[-1][0]] == ["system", "user"]
    tool: Any = {"type": "function", **WEATHER["function"], "strict": False}
    called = client.responses.create(model="table", input=ask("weather?"), tools=[tool])
    assert [item.type for item in called.output] == ["message", "function_call", "function_call"]
    call = called.output[1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Rome"}
    outputs = [
        {"type": "function_call_output", "call_id": each.call_id, "output": "sunny"}
        for each in called.output
        if each.type == "function_call"
    ]
    client.responses.create(
        model="table",
        input=[*ask("weather?"), *(item.model_dump() for item in called.output), *outputs],  # type: ignore[list-item]
        tools=[tool],
    )
    messages = model(served).rendered[-1][0]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool"]
    assert len(messages[1]["tool_calls"]) == 2


def test_responses_in_a_stream(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **WEATHER["function"], "strict": None}
    with client.responses.stream(model="table", input="weather?", tools=[tool]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
    assert final.output_text == "Let me see."
    assert [event.sequence_number for event in events] == sorted(event.sequence_number for event in events)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    failed = list(client.responses.create(model="table", input="half", stream=True))[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert "NaN logits" in failed.response.error.message
    with pytest.raises(openai.BadRequestError, match="stores no responses"):
        client.responses.create(model="table", input="x", previous_response_id="resp_1")


def test_embeddings(client: openai.OpenAI) -> None:
    # The client asks for base64 if nothing is said.
    answer = client.embeddings.create(model="embedder", input=["ab", "abc"])
    assert [each.embedding for each in answer.data] == [[2, 1, 2, 3], [3, 1, 2, 3]]
    assert answer.usage.prompt_tokens == 5
    tokens = client.embeddings.create(model="embedder", input=[1, 2, 3, 4], encoding_format="float")
    assert tokens.data[0].embedding == [4, 1, 2, 3]
    short = client.embeddings.create(model="embedder", input="abcd", dimensions=2)
    np.testing.assert_allclose(short.data[0].embedding, [4 / 17**0.5, 1 / 17**0.5], rtol=1e-6)
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="embedder", input="x", dimensions=5)
    assert caught.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="table", input="x")


def test_a_large_body_is_read_elsewhere(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="table", messages=[*ask("the capital"), *ask("b" * 2000)] * 1, max_tokens=5, metadata={"a": "c" * 40_000}
    )
    assert answer.choices[0].message.content == "Paris"
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(
            "/chat/completions",
            body={"model": "table", "messages": ask("x" * 40_000), "frobnicate": 1},
            cast_to=object,
        )
    assert caught.value.param == "frobnicate"


def test_deep_json_is_refused(client: openai.OpenAI) -> None:
    for depth in (150, 300, 900):
        deep: Any = {}
        for _ in range(depth):
            deep = {"properties": {"a": deep}} if depth < 400 else {"a": deep}
        body = {
            "model": "table",
            "input": "x",
            "metadata": {"m": deep},
            "tools": [{"type": "function", "name": "f", "parameters": deep}],
            "tool_choice": "required",
        }
        with pytest.raises(openai.BadRequestError, match="nested too deep: 200"):
            client.post("/responses", body=body, cast_to=object)
    fits: Any = {}
    for _ in range(190):
        fits = {"a": fits}
    client.post("/responses", body={"model": "table", "input": "x", "metadata": fits}, cast_to=object)


def test_too_many_values_are_refused(client: openai.OpenAI) -> None:
    for body in (
        {"model": "table", "prompt": list(range(400_000))},
        {"model": "table", "prompt": "x", "metadata": {str(key): "" for key in range(30_000)}},
        {"model": "table", "prompt": [[1]] * 30_000},
    ):
        with pytest.raises(openai.APIStatusError, match="too many values") as caught:
            client.post("/completions", body=body, cast_to=object)
        assert caught.value.status_code == 413
