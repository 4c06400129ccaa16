"""Read the messages and tools of a chat, and convert them to the form that chat templates read."""

import re
from typing import Any, Final

import orjson

from triune.engine.structured.constraint import Constraint
from triune.frontends.text.fields import FieldError, Fields, as_fields, unsupported
from triune.frontends.text.forms import chosen

_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEXT_PARTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def read_messages(fields: Fields) -> tuple[dict[str, Any], ...]:
    """Read `messages`. Raises FieldError if they are wrong, or have what the server does not support."""
    messages = fields.need("messages", fields.objects("messages"))
    if not messages:
        raise FieldError("'messages' is empty; send at least one message", "messages")
    return tuple(read_message(each) for each in messages)


def read_message(fields: Fields) -> dict[str, Any]:
    """Read a message, of any role."""
    role = fields.need("role", fields.string("role"))
    if role not in _ROLES:
        hint = "; answers of functions are messages of role 'tool'" if role == "function" else ""
        raise FieldError(
            f"'{fields.path('role')}' is '{role[:64]}'; it must be one of {', '.join(_ROLES)}{hint}",
            fields.path("role"),
        )
    message: dict[str, Any] = {"role": _ROLES[role]}
    calls: list[dict[str, Any]] = []
    if role == "assistant":
        calls = [_read_call(each) for each in fields.objects("tool_calls") or ()]
        fields.refuse("audio", "the model reads text only")
        fields.refuse("function_call", "use 'tool_calls'")
        fields.ignore("annotations")
        refusal = fields.string("refusal")
        content = read_content(fields, "content")
        message["content"] = fields.need("content", "" if calls and content is None else refusal or content)
        for name in ("reasoning_content", "reasoning"):
            if (reasoning := fields.string(name)) is not None:
                message[name] = reasoning
    else:
        message["content"] = fields.need("content", read_content(fields, "content"))
    if role == "tool":
        message["tool_call_id"] = fields.need("tool_call_id", fields.string("tool_call_id"))
    if (name := fields.string("name")) is not None:
        message["name"] = name
    if calls:
        message["tool_calls"] = calls
    fields.end()
    return message


def read_content(fields: Fields, name: str) -> str | None:
    """Read a text, or an array of parts that are all texts, which are joined by newlines."""
    value = fields.take(name)
    if value is None or type(value) is str:
        return value
    path = fields.path(name)
    if type(value) is not list:
        raise FieldError(f"'{path}' must be a string or an array of parts", path, "invalid_type")
    parts: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
    return "\n".join(_read_part(as_fields(part, f"{path}[{place}]")) for place, part in enumerate(parts))


def _read_part(fields: Fields) -> str:
    kind = fields.need("type", fields.string("type"))
    if kind not in _TEXT_PARTS:
        raise unsupported(
            fields.path("type"), f"it is '{kind[:64]}', and the model reads text only", "unsupported_value"
        )
    text = fields.need(_TEXT_PARTS[kind], fields.string(_TEXT_PARTS[kind]))
    fields.ignore("annotations", "logprobs", "cache_control", "prompt_cache_breakpoint")
    fields.end()
    return text


def _read_call(fields: Fields) -> dict[str, Any]:
    fields.choice("type", ("function",))
    fields.ignore("index")
    call_id = fields.string("id")
    function = fields.need("function", fields.object("function"))
    call = template_call(call_id, function.need("name", function.string("name")), function.string("arguments") or "{}")
    function.end()
    fields.end()
    return call


def template_call(call_id: str | None, name: str, arguments: str) -> dict[str, Any]:
    """A tool call in the form of chat templates, which need the arguments as an object. Arguments that are not valid
    JSON, which a model may have written, stay a string.
    """
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        value = arguments
    return {"id": call_id or "", "type": "function", "function": {"name": name, "arguments": value}}


def read_tools(fields: Fields) -> tuple[tuple[dict[str, Any], ...], Constraint | None]:
    """Read `tools` and `tool_choice` of a chat.

    Returns:
        the tools for the prompt, and the constraint of the answer; None if the model need not call a tool.
    """
    tools = tuple(_read_tool(each) for each in fields.objects("tools") or ())
    return chosen_tools(fields, tools)


def _read_tool(fields: Fields) -> dict[str, Any]:
    kind = fields.string("type")
    if kind != "function":
        raise unsupported(fields.path("type"), f"it is '{kind}', and only tools of type 'function' are known")
    function = fields.need("function", fields.object("function"))
    tool = read_function(function)
    fields.end()
    return tool


def read_function(fields: Fields) -> dict[str, Any]:
    """Read the description of a function."""
    name = fields.need("name", fields.string("name"))
    if not _NAME.fullmatch(name):
        raise FieldError(
            f"'{fields.path('name')}' is '{name[:64]}'; it must have 1 to 128 letters, digits and signs of _.:-",
            fields.path("name"),
        )
    # Accept `strict`, without an effect: the schema constrains the arguments whenever the model must call a tool, and
    # only then.
    fields.flag("strict")
    function: dict[str, Any] = {"name": name}
    if (description := fields.string("description")) is not None:
        function["description"] = description
    function["parameters"] = fields.mapping("parameters") or {"type": "object", "properties": {}}
    fields.end()
    return {"type": "function", "function": function}


def chosen_tools(
    fields: Fields, tools: tuple[dict[str, Any], ...]
) -> tuple[tuple[dict[str, Any], ...], Constraint | None]:
    """Read `tool_choice`.

    Returns:
        the tools for the prompt, and the constraint of the answer; None if the model need not call a tool.
    """
    choice = fields.take("tool_choice")
    if choice is None or choice == "auto":
        return tools, None
    if choice == "none":
        return (), None
    path = fields.path("tool_choice")
    if choice == "required":
        return chosen(tools, None, path)
    if type(choice) is str:
        raise FieldError(f"'{path}' is '{choice[:64]}'; it must be 'none', 'auto', 'required' or a function", path)
    named = as_fields(choice, path)
    if (kind := named.string("type")) != "function":
        raise unsupported(path, f"its type is '{kind}', and 'function' is known", "unsupported_value")
    # In the API of responses, `name` is a member of the choice itself; in that of chats, of its member `function`.
    function = named.object("function") or named
    return chosen(tools, function.need("name", function.string("name")), path)
