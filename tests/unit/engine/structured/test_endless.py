"""Schemas that only endless answers could meet."""

from typing import Any

import pytest

from triune.core.errors import InvalidArgumentError
from triune.engine.structured.endless import require_end

ITSELF = {"$ref": "#"}


def needs(schema: object, **more: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], **more}


@pytest.mark.parametrize(
    "schema",
    [
        needs(ITSELF),
        ITSELF,
        {"type": "array", "items": ITSELF, "minItems": 1},
        {"type": "array", "prefixItems": [{}, ITSELF], "minItems": 2},
        needs({"anyOf": [ITSELF, needs(ITSELF)]}),
        {"allOf": [{"type": "integer"}, ITSELF]},
        {"type": "object", "additionalProperties": ITSELF, "required": ["b"]},
        needs({"$ref": "#/$defs/one"}, **{"$defs": {"one": needs({"$ref": "#/$defs/two"}), "two": needs(ITSELF)}}),
        needs({"$ref": "#/$defs/x~1y"}, **{"$defs": {"x/y": needs({"$ref": "#/$defs/x~1y"})}}),
    ],
    ids=str,
)
def test_a_part_that_requires_itself_is_refused(schema: object) -> None:
    with pytest.raises(InvalidArgumentError, match="requires itself, without an end"):
        require_end(schema)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {},
        {"type": "object", "properties": {"a": ITSELF}},
        {"type": "array", "items": ITSELF},
        {"type": "array", "prefixItems": [{}], "items": ITSELF, "minItems": 1},
        needs({"anyOf": [{"type": "null"}, ITSELF]}),
        needs({"type": ["object", "null"], "properties": {"b": ITSELF}, "required": ["b"]}),
        {"type": ["array", "object"], "items": ITSELF, "minItems": 1},
        needs({"enum": [1, 2], "$ref": "#"}),
        needs({"$ref": "https://example.com/other"}),
        needs({"$ref": "#/$defs/one"}, **{"$defs": {"one": {"anyOf": [{"$ref": "#/$defs/two"}]}, "two": {}}}),
        needs({"$ref": "#/$defs/0/1"}, **{"$defs": [[ITSELF, {"type": "string"}]]}),
    ],
    ids=str,
)
def test_what_can_end_is_not(schema: object) -> None:
    require_end(schema)
