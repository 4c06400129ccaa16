"""The formats that a request may ask of an answer: JSON, JSON of a schema, or a tool call."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from triune.engine.structured.constraint import Constraint
from triune.frontends.text.fields import FieldError, Fields, unsupported


def read_format(fields: Fields, name: str) -> Constraint | None:
    """Read `response_format` of chats, or `text.format` of responses; None if any text is allowed."""
    form = fields.object(name)
    if form is None:
        return None
    kind = form.need("type", form.choice("type", ("text", "json_object", "json_schema")))
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint("json_object")
    # In the API of responses, the schema is a member of the format itself; in that of chats, of its `json_schema`.
    inner = form.object("json_schema") or form
    return schema_constraint(inner.need("schema", inner.mapping("schema")))


def schema_constraint(schema: Mapping[str, Any]) -> Constraint:
    """A constraint that allows only JSON that the schema accepts."""
    return Constraint("json_schema", orjson.dumps(schema).decode())


def call_constraint(tools: Sequence[Mapping[str, Any]]) -> Constraint:
    """A constraint that allows only a call of one of the tools, in a form that `ToolCallReader` reads.

    Args:
        tools: descriptions of functions, as in `Chat`.
    """
    definitions: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        function = tool["function"]
        place = f"tool{number}"
        definitions[place] = _moved(function.get("parameters") or {"type": "object"}, f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": {"$ref": f"#/$defs/{place}"}},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return schema_constraint({"$defs": definitions, **(calls[0] if len(calls) == 1 else {"anyOf": calls})})


def chosen(
    tools: tuple[dict[str, Any], ...], name: str | None, path: str
) -> tuple[tuple[dict[str, Any], ...], Constraint]:
    """The tools for the prompt, and the constraint of the answer, for a request in which the model must call a tool.

    Args:
        tools: the tools of the request.
        name: the tool that must be called; None for any.
        path: the request's field, for errors.
    """
    named = tuple(tool for tool in tools if name in (None, tool["function"]["name"]))
    if not named:
        which = "there are no tools" if name is None else f"there is no tool '{name[:64]}'"
        raise FieldError(f"'{path}' asks for a call, and {which} in 'tools'", path)
    return named, call_constraint(named)


def combined(
    call: Constraint | None, form: Constraint | None, tools: Sequence[Mapping[str, Any]], path: str
) -> Constraint | None:
    """Choose the constraint of an answer from the constraints of its tool call and of its text.

    Args:
        call: the constraint of a tool call; None if the model need not call a tool. With it, the answer has no text.
        form: the constraint of the text; None for any text.
        tools: the tools in the prompt.
        path: the field of the request that constrains the text, for errors.
    """
    if call is None and form is not None and tools:
        raise unsupported(path, "the form would keep the model from calling tools: leave out one of the two")
    return call or form


def _moved(schema: Any, place: str) -> Any:
    """Rewrite a JSON schema that is put into another one at `place`, so that its references (`$ref`) stay valid."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in cast("dict[str, Any]", schema).items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved
