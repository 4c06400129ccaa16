"""Read the bodies of requests to OpenAI's endpoint `responses`."""

from dataclasses import dataclass
from typing import Any, Final

from triune.engine.sampling.parameters import MAX_LOGPROBS
from triune.frontends.openai.messages import (
    chosen_tools,
    read_content,
    read_function,
    read_message,
    template_call,
)
from triune.frontends.openai.requests import TextRequest, read_text
from triune.frontends.text.chat import Chat, template_variables
from triune.frontends.text.fields import FieldError, Fields, as_fields, unsupported
from triune.frontends.text.forms import combined, read_format

_LOGPROBS: Final = "message.output_text.logprobs"
_NOT_STORED: Final = "the server stores no responses: send the conversation as 'input'"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """A request to the endpoint `responses`.

    Attributes:
        text: the fields that all requests for text have.
        chat: the conversation.
        shown: fields of the request that its response repeats.
        has_parallel_calls: whether the answer may have more than one call of a tool.
    """

    text: TextRequest
    chat: Chat
    shown: dict[str, Any]
    has_parallel_calls: bool = True


def read_response(fields: Fields) -> ResponseRequest:
    """Read a request to the endpoint `responses`."""
    shown: dict[str, Any] = {
        "instructions": fields.string("instructions"),
        "max_output_tokens": fields.integer("max_output_tokens", 1),
        "metadata": fields.mapping("metadata") or {},
        "parallel_tool_calls": fields.flag("parallel_tool_calls", default=True),
        "tools": fields.array("tools") or [],
        "tool_choice": fields.take("tool_choice") or "auto",
        "text": {"format": {"type": "text"}},
    }
    told = [] if shown["instructions"] is None else [{"role": "system", "content": shown["instructions"]}]
    offered = tuple(_read_tool(as_fields(each, f"tools[{place}]")) for place, each in enumerate(shown["tools"]))
    tools, constraint = chosen_tools(Fields({"tool_choice": shown["tool_choice"]}), offered)
    chat = Chat((*told, *_read_input(fields)), tools, template_variables(fields))
    num_top = fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    has_logprobs = _read_include(fields) or num_top is not None
    form = fields.object("text")
    if form is not None:
        shown["text"] = {"format": form.mapping("format") or {"type": "text"}}
        constraint = combined(constraint, read_format(Fields(shown["text"], "text"), "format"), tools, "text.format")
        form.refuse("verbosity", "say in a message how long the answer shall be", "medium")
        form.end()
    for name in ("previous_response_id", "conversation", "prompt"):
        fields.refuse(name, _NOT_STORED)
    fields.refuse("background", _NOT_STORED, False)
    fields.refuse("truncation", "shorten the input", "disabled")
    fields.refuse("reasoning", "send what the model's template knows as 'chat_template_kwargs'", {})
    fields.refuse("max_tool_calls", "the server calls no tools itself")
    fields.refuse("context_management", "shorten the input")
    fields.refuse("moderation", "the server moderates nothing")
    fields.refuse("n", "a response has one answer", 1)
    text = read_text(fields, shown["max_output_tokens"], (num_top or 0) if has_logprobs else None, constraint)
    shown |= {name: getattr(text.generation.sampling, name) for name in ("temperature", "top_p")}
    return ResponseRequest(text, chat, shown, shown["parallel_tool_calls"])


def _read_tool(fields: Fields) -> dict[str, Any]:
    kind = fields.string("type")
    if kind != "function":
        raise unsupported(fields.path("type"), f"it is '{kind}', and only tools of type 'function' are known")
    return read_function(fields)


def _read_include(fields: Fields) -> bool:
    """Whether the request asks for logprobs."""
    included = fields.array("include") or []
    for each in included:
        if each not in (_LOGPROBS, "reasoning.encrypted_content"):
            raise unsupported("include", f"{each!r} is not known; '{_LOGPROBS}' is", "unsupported_value")
    return _LOGPROBS in included


def _read_input(fields: Fields) -> list[dict[str, Any]]:
    value = fields.need("input", fields.take("input"))
    if type(value) is str:
        return [{"role": "user", "content": value}]
    if type(value) is not list or not value:
        raise FieldError("'input' must be a string, or an array of items that is not empty", "input", "invalid_type")
    items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    messages: list[dict[str, Any]] = []
    for place, each in enumerate(items):
        _read_item(as_fields(each, f"input[{place}]"), messages)
    return messages


def _read_item(fields: Fields, messages: list[dict[str, Any]]) -> None:
    """Read an item of the input, and add it to the messages. Tool calls are added to the preceding message
    of the assistant.
    """
    kind = fields.string("type") or "message"
    fields.ignore("status", "phase")
    if kind == "message":
        fields.ignore("id")
        messages.append(read_message(fields))
    elif kind == "function_call":
        fields.ignore("id")
        name = fields.need("name", fields.string("name"))
        call_id = fields.need("call_id", fields.string("call_id"))
        call = template_call(call_id, name, fields.string("arguments") or "{}")
        fields.end()
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        fields.ignore("id")
        call_id = fields.need("call_id", fields.string("call_id"))
        output = fields.need("output", read_content(fields, "output"))
        fields.end()
        messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
    elif kind == "reasoning":
        # Reasoning of earlier turns is not passed to the model, as in OpenAI's API if the reasoning was not stored.
        fields.ignore("id", "summary", "content", "encrypted_content")
        fields.end()
    else:
        why = f"it is '{kind[:64]}'; messages, reasoning, function_call and function_call_output are known"
        raise unsupported(fields.path("type"), why, "unsupported_value")
