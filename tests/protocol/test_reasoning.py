"""The reasoning of models, by the unmodified `openai` and `anthropic` clients, with models that answer from tables."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from support.table_text_model import TableTextModel, TableTextModels
from support.text_server import TextServer, serve_text

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ANSWERS: dict[str, Any] = {
    "capital": "<think>\nIn France.\n</think>\n\nParis.",
    "weather": f"<think>I ask. {CALL[:11]}</think>{CALL}",
    "json": '{"name": "</think>"}',
}
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture(scope="module")
def served() -> Iterator[TextServer]:
    opened = {name: text.removeprefix("<think>") for name, text in ANSWERS.items()}

    def tables() -> TableTextModels:
        return TableTextModels(
            {
                "table": TableTextModel(ANSWERS),
                # As with chat templates that begin the reasoning themselves.
                "opened": TableTextModel(opened, prompt_end="<assistant><think>\n"),
            }
        )

    with serve_text(tables) as running:
        yield running


@pytest.fixture
def client(served: TextServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("model", ["table", "opened"])
def test_chats(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=ask("the capital"), logprobs=True)
    message: Any = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("In France.", "Paris.")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    num_reasoning = answer.usage.completion_tokens_details.reasoning_tokens or 0
    assert len("In France.") <= num_reasoning <= len("<think>\nIn France.\n</think>")
    streamed = list(client.chat.completions.create(model=model, messages=ask("the capital"), stream=True))
    deltas: list[Any] = [each.choices[0].delta for each in streamed]
    assert "".join(getattr(each, "reasoning_content", None) or "" for each in deltas) == "In France."
    assert "".join(each.content or "" for each in deltas) == "Paris."


def test_completions_are_left_as_they_are(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="table", prompt="the capital", max_tokens=200)
    assert answer.choices[0].text == ANSWERS["capital"]


@pytest.mark.parametrize("model", ["table", "opened"])
def test_calls_come_after_it(client: openai.OpenAI, model: str) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    answer = client.chat.completions.create(model=model, messages=ask("the weather"), tools=[tool])
    message: Any = answer.choices[0].message
    assert message.reasoning_content == "I ask. <tool_call>"
    assert [each.function.name for each in message.tool_calls] == ["weather"]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_an_answer_that_must_have_a_form_has_none(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="opened", messages=ask("json"), response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content == ANSWERS["json"]


@pytest.mark.parametrize("model", ["table", "opened"])
def test_responses(client: openai.OpenAI, model: str) -> None:
    answer = client.responses.create(model=model, input="the capital")
    assert [each.type for each in answer.output] == ["reasoning", "message"]
    reasoning: Any = answer.output[0]
    assert reasoning.content[0].text == "In France."
    assert answer.output_text == "Paris."
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens >= len("In France.")
    # A client sends all items of an answer back with its next question.
    items: Any = [*ask("the capital"), *(each.model_dump() for each in answer.output), *ask("and again?")]
    assert client.responses.create(model=model, input=items).output_text == "Paris."
    with client.responses.stream(model=model, input="the capital") as stream:
        events = list(stream)
        final = stream.get_final_response()
    texts = {
        kind: "".join(getattr(each, "delta", "") for each in events if each.type == f"response.{kind}.delta")
        for kind in ("reasoning_text", "output_text")
    }
    assert texts == {"reasoning_text": "In France.", "output_text": "Paris."}
    assert [each.type for each in final.output] == ["reasoning", "message"]


@pytest.mark.parametrize("model", ["table", "opened"])
def test_messages(served: TextServer, model: str) -> None:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{served.port}", api_key="none", max_retries=0) as client:
        asked: dict[str, Any] = {"model": model, "max_tokens": 200, "messages": ask("the capital")}
        answer = client.messages.create(**asked)
        assert [each.type for each in answer.content] == ["thinking", "text"]
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
    for each in (answer, final):
        first, second = each.content
        assert first.type == "thinking"
        assert first.thinking == "In France."
        assert second.type == "text"
        assert second.text == "Paris."
