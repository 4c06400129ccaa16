"""Write constraints as grammars of llguidance."""

import json
import re
import sys
from typing import Any, Final, cast

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

from triune.config.parse import without_duplicates
from triune.core.errors import InvalidArgumentError
from triune.engine.structured.constraint import MAX_GRAMMAR_CHARACTERS, Constraint

_WHITESPACE: Final = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"}
"""Limits whitespace, where JSON allows it, to 40 characters. Without a limit, small models write whitespace for
ever.
"""

_ASCII: Final = "d"
"""The classes of regular expressions that match ASCII only, by their letters: digits (`\\d`), by which users mean 0 to
9.
"""


def grammar_of(constraint: Constraint) -> str:
    """Write a constraint as a grammar in llguidance's JSON form. Only the outer form of the text is checked here;
    llguidance checks the rest when it compiles the grammar.

    Raises:
        InvalidArgumentError: the text is not the JSON, schema, list of texts or GBNF that it should be.
    """
    match constraint.kind:
        case "json_object":
            part = _of_schema({"type": "object"})
        case "json_schema":
            part = _of_schema(_parsed(constraint))
        case "regex":
            part = {"lark_grammar": f"start: /{regex_to_lark(constraint.text, _ASCII)}/"}
        case "lark":
            part = {"lark_grammar": constraint.text}
        case "gbnf":
            part = {"lark_grammar": _lark_of_gbnf(constraint.text)}
        case "choice":
            part = {"lark_grammar": _lark_of_choice(_parsed(constraint))}
    return json.dumps({"grammars": [part]})


def _parsed(constraint: Constraint) -> object:
    try:
        return json.loads(constraint.text, parse_constant=_refuse_constant, object_pairs_hook=without_duplicates)
    except RecursionError:
        raise InvalidArgumentError(f"the {constraint.kind} is nested too deeply") from None
    except ValueError as error:
        raise InvalidArgumentError(f"the {constraint.kind} is not JSON: {error}") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _of_schema(schema: object) -> dict[str, object]:
    if schema is True:
        schema = {}
    if schema is False:
        raise InvalidArgumentError("the json_schema is false, which no answer can meet")
    if not isinstance(schema, dict):
        raise InvalidArgumentError(f"the json_schema is a {type(schema).__name__}; it must be an object or true")
    return {"json_schema": cast("dict[str, Any]", schema) | {"x-guidance": _WHITESPACE}}


_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


def _lark_of_gbnf(text: str) -> str:
    try:
        # Replace escapes first: `gbnf_to_lark` would drop their leading zeros, so that \u0041b would become \u41b.
        return gbnf_to_lark(_ESCAPE.sub(_character, text))
    # Any exception is the text's fault: besides its own class of errors, the library raises RecursionError for groups
    # nested too deeply, and IndexError for some truncated texts.
    except Exception as error:
        raise InvalidArgumentError(f"the gbnf cannot be read: {error or type(error).__name__}") from error


def _character(escape: re.Match[str]) -> str:
    """The character that an escape stands for. A character of ASCII stays an escape, in a form that the library reads
    correctly.
    """
    digits = next((each for each in escape.groups() if each), None)
    if digits is None:
        return escape[0]
    number = int(digits, 16)
    if not (number <= sys.maxunicode and not 0xD800 <= number <= 0xDFFF):
        raise ValueError(f"{escape[0]} names no character")
    return f"\\x{number:02x}" if number < 128 else chr(number)


def _lark_of_choice(choices: object) -> str:
    texts = cast("list[object]", choices) if isinstance(choices, list) else []
    if not texts or not all(isinstance(each, str) and each for each in texts):
        raise InvalidArgumentError("the choice must be a list of one or more texts that are not empty")
    longest = max(len(cast("str", each)) for each in texts)
    if longest > MAX_GRAMMAR_CHARACTERS:
        raise InvalidArgumentError(f"a choice has {longest} characters; it may have {MAX_GRAMMAR_CHARACTERS}")
    return "start: " + " | ".join(json.dumps(each) for each in texts)
