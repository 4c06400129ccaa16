"""Changes some fields of a config.pbtxt; everything else stays as its author wrote it."""

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf import text_format

from triune.config.parse import parse_text
from triune.core.errors import InvalidArgumentError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

_TOKEN: Final = re.compile(r"""\s+|\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|.""", re.DOTALL)
_OPEN, _CLOSE = "{[<", "}]>"
_PARAMETERS: Final = "parameters"


def rewritten(text: str, before: ModelConfigMessage, after: ModelConfigMessage) -> str:
    """Rewrite the fields of a config's text that differ; comments, and the order of other fields, are kept.

    Args:
        text: the text of `before`.
        before: the config that the text describes.
        after: the config that the result shall describe.
    """
    changed = _changed_fields(before, after)
    if not changed:
        return text
    result = _edited(text, changed, after)
    try:
        if parse_text(result.encode(), "config") == after:
            return result
    except InvalidArgumentError:
        # If the text is written in an unusual way, such as several fields in one list, protobuf writes the whole
        # config.
        pass
    return text_format.MessageToString(after)


def changes(before: ModelConfigMessage, after: ModelConfigMessage) -> str:
    """The fields of `after` that differ from those of `before`, as text."""
    names = _changed_fields(before, after)
    return "".join(_written(name, after) for name in names)


def _changed_fields(before: ModelConfigMessage, after: ModelConfigMessage) -> list[str]:
    """The names of fields that differ; a parameter is "parameters:NAME"."""
    names: list[str] = []
    for field in before.DESCRIPTOR.fields:
        if field.name == _PARAMETERS:
            keys = sorted({*before.parameters, *after.parameters})
            values = ((key, before.parameters.get(key), after.parameters.get(key)) for key in keys)
            names += [f"{_PARAMETERS}:{key}" for key, one, other in values if one != other]
        elif _only(before, field.name) != _only(after, field.name):
            names.append(field.name)
    return names


def _only(message: ModelConfigMessage, name: str) -> ModelConfigMessage:
    """A copy of a message with only the named field."""
    result = ModelConfigMessage()
    result.CopyFrom(message)
    for field, _ in message.ListFields():
        if field.name != name:
            result.ClearField(field.name)
    return result


def _written(name: str, message: ModelConfigMessage) -> str:
    """A field as text, on lines of its own; empty if it is not set."""
    name, _, key = name.partition(":")
    only = _only(message, name)
    if key:
        for other in [each for each in only.parameters if each != key]:
            del only.parameters[other]
        if key in only.parameters:
            value = text_format.MessageToString(only.parameters[key], as_one_line=True)
            return f"parameters {{ key: {_quoted(key)} value {{ {value} }} }}\n"
        return ""
    if (
        name == "dynamic_batching"
        and message.HasField("dynamic_batching")
        and not message.dynamic_batching.ListFields()
    ):
        return "dynamic_batching { }\n"
    return text_format.MessageToString(only)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _edited(text: str, changed: list[str], after: ModelConfigMessage) -> str:
    """Replace the first appearance of each changed field, remove its other appearances, and add fields that appear
    nowhere.
    """
    left = {name: _written(name, after) for name in changed}
    parts: list[str] = []
    end = 0
    for start, stop in _fields(text):
        name = _name_of(text[start:stop])
        if name not in changed:
            continue
        parts.append(text[end:start])
        parts.append(left.pop(name, "").rstrip("\n"))
        end = stop
    rest = text[end:]
    added = "".join(left.values())
    if added and rest and not rest.endswith("\n"):
        rest += "\n"
    return "".join([*parts, rest, added])


def _name_of(field: str) -> str:
    """The name of a field, read from its text. The name of a parameter includes its key."""
    try:
        message = parse_text(field.encode(), "config")
    except InvalidArgumentError:
        return ""
    found = message.ListFields()
    # Protobuf does not list a field that is set to its default, such as max_batch_size: 0. Then read the name from the
    # text.
    name = found[0][0].name if found else re.split(r"[\s:{<\[]", field, maxsplit=1)[0]
    if name == _PARAMETERS and len(message.parameters) == 1:
        return f"{name}:{next(iter(message.parameters))}"
    return name


def _fields(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each top-level field of a text in protobuf's text format begins and ends."""
    start = end = -1
    depth = 0
    has_value = False
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token[0].isspace() or token[0] == "#":
            continue
        if depth == 0 and has_value and token not in ";," and not (token[0] in "\"'" and text[end - 1] in "\"'"):
            # A token after a value begins the next field, except a string after a string: both are one value.
            yield start, end
            start, has_value = -1, False
        if start < 0:
            if token in ";,":
                continue
            start = found.start()
        elif depth == 0 and token in ";,":
            yield start, end
            start, has_value = -1, False
            continue
        elif token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
            has_value = depth == 0
        elif depth == 0 and token != ":":
            has_value = True
        end = found.end()
    if start >= 0:
        yield start, end
