"""Read the bodies of requests to Anthropic's endpoints `messages` and `messages/count_tokens`. Large bodies are read in
another process, so the results of these functions can be pickled.
"""

from dataclasses import dataclass
from typing import Any, Final

from triune.engine.generation import Generation
from triune.engine.structured.constraint import Constraint
from triune.frontends.text.chat import Chat, template_variables
from triune.frontends.text.fields import FieldError, Fields, as_fields, unsupported
from triune.frontends.text.forms import chosen, combined, schema_constraint
from triune.frontends.text.sampling import read_sampling, read_stops

_CHANGE_NOTHING: Final = (
    "metadata",
    "service_tier",
    "cache_control",
    "inference_geo",
    "diagnostics",
    "user_profile_id",
)


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """A request to the endpoint `messages`.

    Attributes:
        model: the model's name.
        chat: the conversation.
        generation: how to generate, without the prompt.
        is_stream: whether to answer with events.
        has_report: whether the answer has a report of where the model ran and how long it took.
        has_parallel_calls: whether the answer may have more than one call of a tool.
    """

    model: str
    chat: Chat
    generation: Generation
    is_stream: bool = False
    has_report: bool = False
    has_parallel_calls: bool = True


@dataclass(frozen=True, slots=True)
class CountRequest:
    """A request to the endpoint `messages/count_tokens`.

    Attributes:
        model: the model's name.
        chat: the conversation.
    """

    model: str
    chat: Chat


def read_messages(fields: Fields) -> MessagesRequest:
    """Read a request to the endpoint `messages`."""
    model = fields.need("model", fields.string("model"))
    chat, constraint, has_parallel_calls = _read_chat(fields)
    generation = Generation(
        (),
        read_sampling(fields, None),
        max_tokens=fields.need("max_tokens", fields.integer("max_tokens", 1)),
        stop=read_stops(fields, "stop_sequences"),
        priority=fields.integer("priority") or 0,
        constraint=combined(constraint, _read_form(fields), chat.tools, "output_config"),
    )
    request = MessagesRequest(model, chat, generation, fields.flag("stream"), fields.flag("triune"), has_parallel_calls)
    _end(fields)
    return request


def read_count(fields: Fields) -> CountRequest:
    """Read a request to the endpoint `messages/count_tokens`."""
    request = CountRequest(fields.need("model", fields.string("model")), _read_chat(fields)[0])
    _read_form(fields)
    _end(fields)
    return request


def _end(fields: Fields) -> None:
    fields.ignore(*_CHANGE_NOTHING)
    thinking = fields.object("thinking")
    if thinking is not None and thinking.string("type") != "disabled":
        raise unsupported("thinking", "send what the model's template knows as 'chat_template_kwargs'")
    fields.refuse("container", "the server runs no code")
    fields.refuse("mcp_servers", "the server calls no tools itself")
    fields.refuse("context_management", "shorten the messages")
    fields.refuse("speed", "there is one speed", "standard")
    fields.end()


def _read_form(fields: Fields) -> Constraint | None:
    """Read the format that the answer must have, from `output_config.format` or its older name `output_format`."""
    config = fields.object("output_config")
    form = fields.object("output_format")
    if config is not None:
        form = config.object("format") or form
        config.refuse("effort", "send what the model's template knows as 'chat_template_kwargs'")
        config.end()
    if form is None:
        return None
    form.choice("type", ("json_schema",))
    return schema_constraint(form.need("schema", form.mapping("schema")))


def _read_chat(fields: Fields) -> tuple[Chat, Constraint | None, bool]:
    """Read the conversation and the tools.

    Returns:
        the conversation; the constraint of the answer if `tool_choice` demands a tool call, else None; and whether the
        answer may have several calls.
    """
    system = _read_texts(fields, "system")
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    given = fields.need("messages", fields.objects("messages"))
    if not given:
        raise FieldError("'messages' is empty; send at least one message", "messages")
    for message in given:
        role = message.need("role", message.choice("role", ("user", "assistant")))
        messages += _read_user(message) if role == "user" else [_read_assistant(message)]
        message.end()
    # If the last message is the assistant's, the model continues it as its answer.
    beginning = ""
    if messages[-1]["role"] == "assistant":
        if "tool_calls" in messages[-1]:
            raise FieldError("the last message calls tools; send their results after it", "messages")
        beginning = messages.pop()["content"]
    tools = tuple(_read_tool(each) for each in fields.objects("tools") or ())
    choice = fields.object("tool_choice")
    has_parallel_calls, constraint = True, None
    if choice is not None:
        kind = choice.choice("type", ("auto", "none", "any", "tool"))
        if kind in ("any", "tool"):
            name = choice.need("name", choice.string("name")) if kind == "tool" else None
            tools, constraint = chosen(tools, name, "tool_choice")
        tools = () if kind == "none" else tools
        has_parallel_calls = not choice.flag("disable_parallel_tool_use")
    variables = template_variables(fields)
    return Chat(tuple(messages), tools, variables, beginning), constraint, has_parallel_calls


def _blocks(fields: Fields, name: str) -> list[Fields] | None:
    """Read the blocks of a content; a string counts as one block of text. None if the field is absent."""
    value = fields.take(name)
    path = fields.path(name)
    if value is None:
        return None
    if type(value) is str:
        return [Fields({"type": "text", "text": value}, path)]
    if type(value) is not list:
        raise FieldError(f"'{path}' must be a string or an array of blocks", path)
    blocks: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    return [as_fields(each, f"{path}[{place}]") for place, each in enumerate(blocks)]


def _read_texts(fields: Fields, name: str) -> str | None:
    """Read blocks that must all be texts, and join them by newlines; None if the field is absent."""
    blocks = _blocks(fields, name)
    if blocks is None:
        return None
    texts: list[str] = []
    for block in blocks:
        kind = block.string("type")
        if kind != "text":
            raise _unknown_block(block, kind)
        texts.append(_read_text(block))
    return "\n".join(texts)


def _read_text(block: Fields) -> str:
    text = block.need("text", block.string("text"))
    block.ignore("cache_control", "citations")
    block.end()
    return text


def _read_user(message: Fields) -> list[dict[str, Any]]:
    """A message of the user. Tool results become separate messages before its text."""
    results: list[dict[str, Any]] = []
    texts: list[str] = []
    for block in message.need("content", _blocks(message, "content")):
        kind = block.string("type")
        if kind == "text":
            texts.append(_read_text(block))
        elif kind == "tool_result":
            content = _read_texts(block, "content") or ""
            if block.flag("is_error"):
                content = f"Error: {content}"
            call_id = block.need("tool_use_id", block.string("tool_use_id"))
            results.append({"role": "tool", "tool_call_id": call_id, "content": content})
            block.ignore("cache_control")
            block.end()
        else:
            raise _unknown_block(block, kind)
    return [*results, {"role": "user", "content": "\n".join(texts)}] if texts or not results else results


def _read_assistant(message: Fields) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.need("content", _blocks(message, "content")):
        kind = block.string("type")
        if kind == "text":
            texts.append(_read_text(block))
        elif kind == "tool_use":
            name = block.need("name", block.string("name"))
            function = {"name": name, "arguments": block.need("input", block.mapping("input"))}
            calls.append({"id": block.need("id", block.string("id")), "type": "function", "function": function})
            block.ignore("cache_control", "caller")
            block.end()
        elif kind not in ("thinking", "redacted_thinking"):
            # Thoughts of earlier turns are not shown to the model, as in Anthropic's API.
            raise _unknown_block(block, kind)
    content: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    return {**content, "tool_calls": calls} if calls else content


def _unknown_block(block: Fields, kind: str | None) -> FieldError:
    return unsupported(block.path("type"), f"it is '{(kind or '')[:64]}', and the model reads text only")


def _read_tool(fields: Fields) -> dict[str, Any]:
    kind = fields.string("type")
    if kind not in (None, "custom"):
        raise unsupported(fields.path("type"), f"it is '{kind[:64]}', and the server calls no tools itself")
    function: dict[str, Any] = {"name": fields.need("name", fields.string("name"))}
    if (description := fields.string("description")) is not None:
        function["description"] = description
    function["parameters"] = fields.need("input_schema", fields.mapping("input_schema"))
    # `strict` changes nothing: the schema constrains the arguments if the model must call a tool, and only then.
    fields.flag("strict")
    fields.ignore("cache_control", "input_examples", "eager_input_streaming", "allowed_callers", "defer_loading")
    fields.end()
    return {"type": "function", "function": function}
