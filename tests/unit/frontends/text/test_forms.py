"""Calls that must be made: what their form allows, and that it is read as a call."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.scripted import EOS, VOCAB, byte_tokenizer
from triune.engine.structured.compiler import ConstraintCompiler
from triune.engine.structured.constraint import Constraint
from triune.engine.tools.pieces import CallBegin
from triune.engine.tools.reader import ToolCallReader
from triune.frontends.text.fields import FieldError
from triune.frontends.text.forms import call_constraint, chosen

# References to the root of a tool's own schema, as pydantic writes them.
TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "required": ["root"],
    "additionalProperties": False,
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
            "required": ["left"],
            "additionalProperties": False,
        }
    },
}
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = (tool("tree", TREE), tool("weather", CITY))


@pytest.fixture(scope="module")
def compiler() -> Iterator[ConstraintCompiler]:
    made = ConstraintCompiler(byte_tokenizer(), VOCAB)
    yield made
    made.close()


def fits(compiler: ConstraintCompiler, constraint: Constraint, text: str) -> bool:
    matcher = compiler.compile(constraint).matcher()
    for byte in text.encode():
        if not matcher.allowed()[byte]:
            return False
        matcher.accept(byte)
    return matcher.is_ended or bool(matcher.allowed()[EOS])


@pytest.mark.parametrize(
    ("name", "arguments", "is_right"),
    [
        ("weather", {"city": "Rome"}, True),
        ("weather", {"town": "Rome"}, False),
        ("tree", {"root": {"left": {"left": None}}}, True),
        ("tree", {"root": {"right": None}}, False),
        ("fly", {}, False),
    ],
)
def test_calls(compiler: ConstraintCompiler, name: str, arguments: dict[str, Any], is_right: bool) -> None:
    text = json.dumps({"name": name, "arguments": arguments})
    assert fits(compiler, call_constraint(TOOLS), text) == is_right
    if is_right:
        reader = ToolCallReader({"tree": TREE, "weather": CITY})
        pieces = reader.add(text) + reader.end()
        assert pieces[0] == CallBegin(0, name)
        assert json.loads("".join(piece.text for piece in pieces[1:])) == arguments  # type: ignore[union-attr]


def test_one_tool(compiler: ConstraintCompiler) -> None:
    tools, constraint = chosen(TOOLS, "weather", "tool_choice")
    assert tools == TOOLS[1:]
    assert fits(compiler, constraint, '{"name": "weather", "arguments": {"city": "Rome"}}')
    assert not fits(compiler, constraint, '{"name": "tree", "arguments": {"root": {"left": null}}}')
    with pytest.raises(FieldError, match="no tool 'fly'"):
        chosen(TOOLS, "fly", "tool_choice")
