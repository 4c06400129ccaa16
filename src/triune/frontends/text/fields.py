"""Read the members of a JSON object of a request, each once. Members that were not read in the end are refused."""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar, cast

from triune.core.errors import InvalidArgumentError, TriuneError
from triune.engine.sampling.parameters import SAMPLING_FIELDS
from triune.frontends.bodies.json_values import json_name

T = TypeVar("T")

_MAX_INT = 2**63 - 1
_SHOWN_CHARACTERS = 64
# The parameters with which the engine's error messages may begin.
_ENGINE_FIELDS = SAMPLING_FIELDS | {"max_tokens", "min_tokens", "top_logprobs"}


class FieldError(InvalidArgumentError):
    """A field of a request is wrong.

    Attributes:
        param: the field's path, such as `messages[0].content`; empty if the error does not concern a single field.
        code: OpenAI's code of the error, if there is one.
    """

    def __init__(self, message: str, param: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def unsupported(param: str, why: str, code: str = "unsupported_parameter") -> FieldError:
    """Make the error for a field that would change the answer, but is not supported."""
    return FieldError(f"'{param}' is not supported: {why}", param, code)


class Fields:
    """The members of an object. A member that is null counts as absent, since clients send null for what they do not
    set. Every method raises FieldError, which names the member.
    """

    def __init__(self, document: Mapping[str, Any], path: str = "") -> None:
        """Args:
        document: the object.
        path: where it is in the request; empty for the request itself.
        """
        self._left = {name: value for name, value in document.items() if value is not None}
        self._path = path

    def path(self, name: str) -> str:
        """The path of a member in the request, such as `messages[0].role`, for error messages."""
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str) -> Any:
        """Read a member of any type; None if it is absent."""
        return self._left.pop(name, None)

    def need(self, name: str, value: T | None) -> T:
        """Return the value of a member that was read. Raises FieldError if it is None."""
        if value is None:
            raise FieldError(f"'{self.path(name)}' is missing", self.path(name), "missing_required_parameter")
        return value

    def string(self, name: str) -> str | None:
        """Read a string; None if it is absent."""
        return self._typed(name, (str,), "a string")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Read a boolean; `default` if it is absent."""
        value = cast("bool | None", self._typed(name, (bool,), "true or false"))
        return default if value is None else value

    def integer(self, name: str, low: int = 0, high: int = _MAX_INT) -> int | None:
        """Read an integer from `low` to `high`; None if it is absent."""
        value = cast("int | None", self._typed(name, (int,), "an integer"))
        if value is not None and not low <= value <= high:
            above = f"between {low} and {high}" if high < _MAX_INT else f"at least {low}"
            raise FieldError(f"'{self.path(name)}' is {value}; it must be {above}", self.path(name))
        return value

    def number(self, name: str) -> float | None:
        """Read a number; None if it is absent."""
        return self._typed(name, (int, float), "a number")

    def array(self, name: str) -> list[Any] | None:
        """Read an array; None if it is absent."""
        return self._typed(name, (list,), "an array")

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Read an object without checking its members; None if it is absent."""
        return self._typed(name, (dict,), "an object")

    def object(self, name: str) -> "Fields | None":
        """Read an object; None if it is absent. The caller must read all of its members."""
        value = self.mapping(name)
        return None if value is None else Fields(value, self.path(name))

    def objects(self, name: str) -> "list[Fields] | None":
        """Read an array of objects; None if it is absent."""
        values = self.array(name)
        if values is None:
            return None
        return [as_fields(value, f"{self.path(name)}[{place}]") for place, value in enumerate(values)]

    def integers(self, name: str) -> list[int] | None:
        """Read an array of non-negative integers; None if it is absent."""
        values = self.array(name)
        if values is not None and not are_tokens(values):
            raise FieldError(f"'{self.path(name)}' must be an array of integers from 0", self.path(name))
        return values

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """Read a string that must be one of the choices; None if it is absent."""
        value = self.string(name)
        if value is not None and value not in choices:
            one_of = ", ".join(f"'{each}'" for each in choices)
            raise FieldError(
                f"'{self.path(name)}' is '{value[:_SHOWN_CHARACTERS]}'; it must be one of {one_of}", self.path(name)
            )
        return value

    def ignore(self, *names: str) -> None:
        """Pass over members that do not change the answer."""
        for name in names:
            self._left.pop(name, None)

    def refuse(self, name: str, why: str, *allowed: Any) -> None:
        """Refuse a member that is not supported, unless it has one of the values that change nothing."""
        value = self._left.pop(name, None)
        if value is not None and not any(type(value) is type(each) and value == each for each in allowed):
            raise unsupported(self.path(name), why)

    def end(self) -> None:
        """Raise FieldError if there are members that were not read."""
        for name in self._left:
            path = self.path(name[:_SHOWN_CHARACTERS])
            raise FieldError(f"unknown field '{path}': leave it out, or correct its name", path, "unknown_parameter")

    def _typed(self, name: str, types: tuple[type, ...], wanted: str) -> Any:
        value = self._left.pop(name, None)
        if value is not None and type(value) not in types:
            raise FieldError(
                f"'{self.path(name)}' must be {wanted}, not {json_name(value)}", self.path(name), "invalid_type"
            )
        return value


def as_fields(value: Any, path: str) -> Fields:
    """The members of a value that must be an object."""
    if type(value) is not dict:
        raise FieldError(f"'{path}' must be an object, not {json_name(value)}", path, "invalid_type")
    return Fields(cast("dict[str, Any]", value), path)


def are_tokens(values: list[Any]) -> bool:
    """Whether all values can be token ids: integers that are not negative."""
    return all(type(value) is int and value >= 0 for value in values)


def field_of(error: TriuneError) -> str:
    """The field of the request that an error is about: `FieldError.param`, or the first word of the error's message if
    that is one of the engine's fields; "" if there is none.
    """
    if isinstance(error, FieldError):
        return error.param
    word = str(error).partition(" ")[0]
    return word if word in _ENGINE_FIELDS else ""
