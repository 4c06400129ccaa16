"""Parse Triton's ModelConfig from text (config.pbtxt) and JSON (a load request). Errors say line and column."""

import difflib
import json
import re
from typing import Final, cast

from google.protobuf import descriptor_pb2, json_format, text_format

from triune.core.errors import InvalidArgumentError, PayloadTooLargeError
from triune.protos.model_config_pb2 import ModelConfig as ModelConfigMessage

LARGEST_CONFIG_BYTES = 256 << 10
"""The size limit of a config. A config with a thousand inputs has 64 KiB. Libraries hold the GIL while they parse and
copy a config: one of 4 MiB takes 17 s in all, and blocks all requests for 0.2 s or more at a time.
"""

WHY_NO_LARGER = "a larger one would hold up the requests of all models; large data belongs in the model's files"

NEEDED_LATER: Final = (descriptor_pb2,)
"""Modules that protobuf imports when it first parses a text. They are imported at the start, since packages may be
upgraded while the server runs."""

_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]*)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')
_UNKNOWN_JSON_VALUE = re.compile(r"Invalid enum value (\S+) for enum type ([\w.]+)")


def parse_text(content: bytes, source: str) -> ModelConfigMessage:
    """Read config.pbtxt.

    Args:
        content: the file's bytes.
        source: the name of the file in messages.

    Raises:
        InvalidArgumentError: a syntax error, an unknown field or a value out of range; the message starts with
            `source:line:column` and offers the nearest known name.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise InvalidArgumentError(
            f"{source}:{line}:{column}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    message = ModelConfigMessage()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        position = f"{source}:{error.GetLine() or 1}:{error.GetColumn() or 1}"
        raise InvalidArgumentError(f"{position}: {_explain(_without_position(str(error)))}") from None
    except ValueError as error:
        # protobuf raises ValueError for text that its strings cannot hold, such as escaped lone surrogates.
        raise InvalidArgumentError(f"{source}:1:1: a value is out of range: {error}") from None
    return message


def check_size(config_json: str) -> None:
    """Raise PayloadTooLargeError if a load request's config is larger than the limit for a config file."""
    if len(config_json) > LARGEST_CONFIG_BYTES:
        raise PayloadTooLargeError(
            f"the config has {len(config_json)} characters; {LARGEST_CONFIG_BYTES} are the limit: {WHY_NO_LARGER}"
        )


def parse_json(content: str, source: str) -> ModelConfigMessage:
    """Read a ModelConfig in JSON, by protobuf's JSON mapping (names in snake_case or camelCase).

    Raises:
        InvalidArgumentError: not JSON (with line and column), an unknown field (with its path and the nearest known
            name), or a value of the wrong type.
    """
    try:
        value = cast(object, json.loads(content, object_pairs_hook=without_duplicates))
    except json.JSONDecodeError as error:
        raise InvalidArgumentError(f"{source}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise InvalidArgumentError(
            f"{source}: the JSON is nested too deep: about 1,000 levels are the limit; a config has few"
        ) from None
    except ValueError as error:
        raise InvalidArgumentError(f"{source}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(
            f"{source}: expected a JSON object with the fields of ModelConfig, found {type(value).__name__}"
        )
    message = ModelConfigMessage()
    try:
        json_format.ParseDict(cast("dict[str, object]", value), message)
    except json_format.ParseError as error:
        raise InvalidArgumentError(f"{source}: {_explain(str(error))}") from None
    except (ValueError, TypeError, AttributeError) as error:
        # For some values of a wrong JSON type protobuf's parser raises these errors, and not ParseError.
        raise InvalidArgumentError(f"{source}: a value has the wrong type or is out of range: {error}") from None
    return message


def _without_position(text: str) -> str:
    return re.sub(r"^\d+(:\d+)? : ('(?:.|\n)*': )?", "", text)


def _explain(text: str) -> str:
    """Append the nearest known name to protobuf's message."""
    text = text.split("\n Available Fields", 1)[0]
    if unknown := _UNKNOWN_FIELD.search(text):
        type_name, name = unknown.groups()
        known = _fields(type_name)
        found = text[unknown.end() :].strip(" .")
        where = f" ({found})" if found else ""
        return f'{_short(type_name)} has no field "{name}"{where}{_nearest(name, known)}'
    if unknown := _UNKNOWN_VALUE.search(text):
        return f'{_short(unknown[1])} has no value "{unknown[2]}"{_nearest(unknown[2], _values(unknown[1]))}'
    if unknown := _UNKNOWN_JSON_VALUE.search(text):
        return f'{_short(unknown[2])} has no value "{unknown[1]}"{_nearest(unknown[1], _values(unknown[2]))}: {text}'
    return text


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{nearest[0]}"?' if nearest else f"; known are: {', '.join(known)}" if known else ""


def _fields(type_name: str) -> list[str]:
    try:
        message = ModelConfigMessage.DESCRIPTOR.file.pool.FindMessageTypeByName(type_name)
    except KeyError:
        return []
    return [field.name for field in message.fields]


def _values(type_name: str) -> list[str]:
    try:
        enum = ModelConfigMessage.DESCRIPTOR.file.pool.FindEnumTypeByName(type_name)
    except KeyError:
        return []
    return [value.name for value in enum.values]


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a dict of a JSON object, as an `object_pairs_hook` of `json.loads`. Raises ValueError if a name occurs
    twice.
    """
    result = dict(pairs)
    if len(result) < len(pairs):
        seen = set[str]()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f'the field "{repeated}" is given twice')
    return result
