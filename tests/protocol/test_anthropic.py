"""The unmodified `anthropic` client against the HTTP server, with models that answer from tables."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from support.table_text_model import TableTextModel, TableTextModels
from support.text_server import TextServer, serve_text
from triune.core.errors import InternalError, UnavailableError

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ANSWERS: dict[str, Any] = {
    "capital": "Paris, of course.",
    "weather": f"Let me see.\n{CALL}\n{CALL}",
    "cut": '<tool_call>{"name": "weather", "arguments": {"city": "Ro',
    "deep": '<tool_call>{"name": "weather", "arguments": {"a": ' + "[" * 500 + "]" * 500 + "}}</tool_call>",
    "half": ("Half an answer", InternalError("the model failed: NaN logits")),
}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def served() -> Iterator[TextServer]:
    def tables() -> TableTextModels:
        return TableTextModels(
            {
                "table": TableTextModel(ANSWERS),
                "small": TableTextModel(ANSWERS, context_tokens=60),
                "busy": UnavailableError("too many requests wait; try again later"),
            }
        )

    with serve_text(tables) as running:
        yield running


@pytest.fixture
def client(served: TextServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{served.port}", api_key="none", max_retries=0) as made:
        yield made


def table(served: TextServer) -> TableTextModel:
    return served.models.models["table"]


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_message(client: anthropic.Anthropic, served: TextServer) -> None:
    answer = client.messages.create(
        model="table",
        max_tokens=100,
        system="be brief",
        messages=ask("the capital"),
        extra_body={"temperature": 0.5, "top_k": 7},
        metadata={"user_id": "me"},
    )
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Paris, of course."}]
    assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", "table")
    usage = answer.usage
    prompt = table(served).requests[-1].prompt
    assert usage.output_tokens == len("Paris, of course.")
    assert usage.cache_read_input_tokens == len(prompt) // 2
    assert usage.input_tokens + usage.cache_read_input_tokens == len(prompt)
    sampling = table(served).requests[-1].sampling
    assert (sampling.temperature, sampling.top_k) == (0.5, 7)
    assert table(served).rendered[-1][0][0] == {"role": "system", "content": "be brief"}


def test_models(client: anthropic.Anthropic) -> None:
    assert [(each.id, each.type, each.display_name) for each in client.models.list()] == [
        (name, "model", name) for name in ("table", "small")
    ]
    assert client.models.list().last_id == "small"
    assert client.models.retrieve("table").created_at.year > 2000


def test_why_it_ended(client: anthropic.Anthropic) -> None:
    short = client.messages.create(model="table", max_tokens=5, messages=ask("capital"))
    assert short.stop_reason == "max_tokens"
    stopped = client.messages.create(model="table", max_tokens=50, messages=ask("capital"), stop_sequences=[", "])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", ", ")
    full = client.messages.create(model="small", max_tokens=500, messages=ask("capital" + "." * 20))
    assert full.stop_reason == "model_context_window_exceeded"


def test_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="table", max_tokens=100, messages=ask("capital")) as stream:
        assert "".join(stream.text_stream) == "Paris, of course."
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == len("Paris, of course.")
    kinds = [
        event.type
        for event in client.messages.create(model="table", max_tokens=1, messages=ask("capital"), stream=True)
    ]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_async_stream(served: TextServer) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{served.port}", api_key="none") as client,
        client.messages.stream(model="table", max_tokens=100, messages=ask("capital")) as stream,
    ):
        assert "".join([text async for text in stream.text_stream]) == "Paris, of course."


def test_tools(client: anthropic.Anthropic, served: TextServer) -> None:
    answer = client.messages.create(model="table", max_tokens=500, messages=ask("weather?"), tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    call = answer.content[1]
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("weather", {"city": "Rome"})
    with client.messages.stream(model="table", max_tokens=500, messages=ask("weather?"), tools=[WEATHER]) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in streamed.content] == ["text", "tool_use", "tool_use"]
    assert streamed.content[2].input == {"city": "Rome"}  # type: ignore[union-attr]
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny"}]}
        for block in answer.content
        if block.type == "tool_use"
    ]
    client.messages.create(
        model="table",
        max_tokens=50,
        messages=[
            *ask("weather?"),
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [*results, {"type": "text", "text": "and?"}]},
        ],
        tools=[WEATHER],
    )
    messages, tools, _ = table(served).rendered[-1]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert messages[2] == {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    assert tools[0]["function"]["parameters"] == WEATHER["input_schema"]
    one = client.messages.create(
        model="table",
        max_tokens=500,
        messages=ask("weather?"),
        tools=[WEATHER],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    assert len(one.content) == 2


def test_forms(client: anthropic.Anthropic, served: TextServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    choices: tuple[Any, ...] = ({"type": "any"}, {"type": "tool", "name": "weather"})
    for choice in choices:
        client.messages.create(
            model="table", max_tokens=500, messages=ask("weather?"), tools=[WEATHER], tool_choice=choice
        )
        constraint = table(served).requests[-1].constraint
        assert constraint is not None
        assert "weather" in constraint.text
    client.messages.create(
        model="table",
        max_tokens=5,
        messages=ask("x"),
        extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    )
    constraint = table(served).requests[-1].constraint
    assert constraint is not None
    assert json.loads(constraint.text) == schema


def test_arguments_that_are_cut_off_are_not_lost(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="table", max_tokens=500, messages=ask("cut"), tools=[WEATHER])
    assert answer.content[0].input == {"arguments": '{"city": "Ro'}  # type: ignore[union-attr]


def test_arguments_may_be_nested_deep(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="table", max_tokens=5000, messages=ask("deep"), tools=[WEATHER])
    depth, value = 0, answer.content[0].input["a"]  # type: ignore[union-attr]
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 499


def test_the_last_message_begins_the_answer(client: anthropic.Anthropic, served: TextServer) -> None:
    client.messages.create(
        model="table", max_tokens=5, messages=[*ask("hi"), {"role": "assistant", "content": "The capital is"}]
    )
    assert bytes(table(served).requests[-1].prompt).endswith(b"<assistant>The capital is")


def test_count_tokens(client: anthropic.Anthropic, served: TextServer) -> None:
    counted = client.messages.count_tokens(model="table", messages=ask("the capital"), tools=[WEATHER])
    client.messages.create(model="table", max_tokens=1, messages=ask("the capital"), tools=[WEATHER])
    assert counted.input_tokens == len(table(served).requests[-1].prompt)


def test_report(client: anthropic.Anthropic) -> None:
    for is_stream in (False, True):
        answer: Any = client.messages.create(
            model="table", max_tokens=9, messages=ask("x"), extra_body={"triune": True}, stream=is_stream
        )
        document = list(answer)[-2] if is_stream else answer
        assert document.model_dump()["triune"]["unit"] == "cpu"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "empty"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages\\[0\\].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "text only"),
    ({"max_tokens": None}, "max_tokens.*missing"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"frobnicate": 1}, "frobnicate"),
    ({"temperature": -1}, "temperature"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[each[1] for each in REFUSED])
def test_wrong_fields_are_named(client: anthropic.Anthropic, fields: dict[str, Any], words: str) -> None:
    body = {"model": "table", "max_tokens": 9, "messages": ask("x"), **fields}
    with pytest.raises(anthropic.BadRequestError, match=words) as caught:
        client.post("/v1/messages", body=body, cast_to=object)
    assert caught.value.body["type"] == "error"  # type: ignore[index]
    assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


def test_unknown_paths_and_methods_have_the_same_form(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="there is no GET /v1/messages/batches") as unknown:
        client.messages.batches.list()
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.APIStatusError, match="GET /v1/messages is not allowed; use POST"):
        client.get("/v1/messages", cast_to=object)


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=9, messages=ask("x"))
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 12[0-9] tokens > 59 maximum"):
        client.messages.create(model="small", max_tokens=9, messages=ask("x" * 100))
    with pytest.raises(anthropic.InternalServerError, match="overloaded_error") as busy:
        client.messages.create(model="busy", max_tokens=9, messages=ask("x"))
    assert busy.value.status_code == 529
    stream = client.messages.create(model="table", max_tokens=99, messages=ask("half"), stream=True)
    events: list[Any] = []
    with pytest.raises(anthropic.APIStatusError, match="NaN logits"):
        events.extend(stream)
    assert events[-1].type == "content_block_delta"
