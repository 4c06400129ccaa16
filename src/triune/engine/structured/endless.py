"""Find JSON schemas that only endless answers could match, since a part of the schema requires itself."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import unquote

from triune.core.errors import InvalidArgumentError

_COMPOUND: Final = frozenset({"object", "array"})


def require_end(schema: object) -> None:
    """Check that some finite value matches a schema.

    Unknown keywords are assumed to allow a finite value. Work grows with the square of the number of references.

    Args:
        schema: as parsed from JSON, nested no deeper than the interpreter's stack allows.

    Raises:
        InvalidArgumentError: no finite value matches it.
    """
    targets = {reference: _target(schema, reference) for reference in _references(schema)}
    ending = {reference for reference, target in targets.items() if target is None}
    # Add to `ending` the references that a finite value matches, until none is added any more, since each may
    # depend on others that were added before.
    while found := [each for each in targets if each not in ending and _can_end(targets[each], ending)]:
        ending.update(found)
    if not _can_end(schema, ending):
        endless = ", ".join(sorted(targets.keys() - ending)[:3])
        raise InvalidArgumentError(f"no answer can meet the json_schema: {endless} requires itself, without an end")


def _can_end(schema: object, ending: Collection[str]) -> bool:
    """Whether a finite value matches the schema, given that finite values match the references `ending`."""
    if not isinstance(schema, dict):
        return True
    given = cast("Mapping[str, Any]", schema)
    if "const" in given or "enum" in given:
        return True
    reference = given.get("$ref")
    if isinstance(reference, str) and reference not in ending:
        return False
    if not all(_can_end(each, ending) for each in _list(given.get("allOf"))):
        return False
    for name in ("anyOf", "oneOf"):
        choices = _list(given.get(name))
        if choices and not any(_can_end(each, ending) for each in choices):
            return False
    types = given.get("type")
    types = [types] if isinstance(types, str) else _list(types)
    if not types or not _COMPOUND.issuperset(types):
        return True
    return any(_object_can_end(given, ending) if each == "object" else _array_can_end(given, ending) for each in types)


def _object_can_end(schema: Mapping[str, Any], ending: Collection[str]) -> bool:
    properties = schema.get("properties")
    known = cast("Mapping[str, Any]", properties if isinstance(properties, dict) else {})
    other: object = schema.get("additionalProperties", True)
    return all(_can_end(known.get(name, other), ending) for name in _list(schema.get("required")))


def _array_can_end(schema: Mapping[str, Any], ending: Collection[str]) -> bool:
    least = schema.get("minItems", 0)
    if not isinstance(least, int | float) or least <= 0:
        return True
    first = _list(schema.get("prefixItems"))
    needed = first[: int(least)]
    return all(_can_end(each, ending) for each in needed) and (
        least <= len(first) or _can_end(schema.get("items", True), ending)
    )


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _references(schema: object) -> Iterator[str]:
    """Yield the values of all `$ref` in a schema, at any depth."""
    if isinstance(schema, dict):
        given = cast("Mapping[str, Any]", schema)
        reference = given.get("$ref")
        if isinstance(reference, str):
            yield reference
        for each in given.values():
            yield from _references(each)
    elif isinstance(schema, list):
        for each in cast("list[object]", schema):
            yield from _references(each)


def _target(schema: object, reference: str) -> object:
    """The part of the schema that a reference points to; None if the part does not exist, or the reference does not
    begin with "#".
    """
    if reference != "#" and not reference.startswith("#/"):
        return None
    found: Any = schema
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = cast("Mapping[str, Any]", found).get(name)
        elif isinstance(found, list) and name.isdigit() and int(name) < len(cast("list[Any]", found)):
            found = cast("list[Any]", found)[int(name)]
        else:
            return None
    return found
