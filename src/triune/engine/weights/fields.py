"""Named settings of a model file. Each is checked when it is read; at the end, settings that were never read are
refused.
"""

import math
from collections.abc import Collection, Mapping, Sized
from typing import Final, TypeVar, cast

import numpy as np

from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.core.printable import printable

MAX_LAYERS: Final = 4096
MAX_SIZE: Final = 1 << 28
"""The largest width, vocabulary or context that is read. Code that uses such a size also compares it with the
tensors.
"""

_Choice = TypeVar("_Choice", bound=str)

_SHOWN_CHARACTERS: Final = 80


class Fields:
    """Settings by name. A value of None means that the setting is missing."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        """Args:
        values: the settings, as the file has them.
        where: names the file in errors.
        """
        self._values = values
        self._read: set[str] = set()
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def has(self, name: str) -> bool:
        """Whether a setting exists, even if it is null."""
        return name in self._values

    def get(self, name: str) -> object:
        """The value of a setting, as the file has it; None if the setting is missing."""
        self._read.add(name)
        return self._values.get(name)

    def whole(self, name: str, default: int | None = None, *, least: int = 1, most: int = MAX_SIZE) -> int:
        """An integer from `least` to `most`. Without a default the setting must exist.

        Raises:
            InvalidArgumentError: the setting is missing, not an integer, or out of this range. The other methods raise
                this error likewise.
        """
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def whole_or_none(self, name: str, *, least: int = 0, most: int = MAX_SIZE) -> int | None:
        """A whole number from `least` to `most`; None if the setting is missing."""
        return None if self.get(name) is None else self.whole(name, least=least, most=most)

    def number(self, name: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """A finite number greater than `above`. Without a default the setting must exist."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        # The upper limit is needed since whole numbers in JSON may be too large for a float.
        if type(value) not in (int, float) or not above < cast("float", value) < 1e300:
            raise self.wrong(name, "a finite number" + (f" above {above:g}" if above > -math.inf else ""))
        return float(cast("float", value))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false. Without a default the setting must exist."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not bool:
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A string. Without a default the setting must exist."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def choice(self, name: str, choices: Mapping[str, _Choice], default: _Choice | None = None) -> _Choice:
        """The value that `choices` has for the setting's string; `default` if the setting is missing.

        Raises:
            UnsupportedError: the string is not in `choices`.
        """
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise UnsupportedError(
                f"{self.where}: {name} is {shown(value)}; known here are {', '.join(map(repr, choices))}"
            )
        return choices[value]

    def numbers(self, name: str, length: int, *, above: float = -math.inf) -> tuple[float, ...]:
        """A list of `length` finite numbers greater than `above`."""
        value = self.get(name)
        items = cast("list[object]", value) if isinstance(value, list) else []
        if len(items) != length or not all(
            type(each) in (int, float) and above < cast("float", each) < 1e300 for each in items
        ):
            raise self.wrong(name, f"{length} finite numbers" + (f" above {above:g}" if above > -math.inf else ""))
        return tuple(float(cast("float", each)) for each in items)

    def items(self, name: str) -> list[object] | None:
        """The items of an array; None if the setting is not an array, or is a numpy array of more than MAX_LAYERS
        numbers.
        """
        value = self.get(name)
        if isinstance(value, np.ndarray) and value.size <= MAX_LAYERS:
            return cast("list[object]", value.tolist())
        return cast("list[object]", value) if isinstance(value, list) else None

    def ids(self, name: str) -> tuple[int, ...]:
        """The ids of tokens: the setting is a list of ids, one id, or missing."""
        items = self.items(name)
        if items is None:
            one = self.whole_or_none(name)
            return () if one is None else (one,)
        if len(items) > MAX_LAYERS or not all(type(each) is int and 0 <= each <= MAX_SIZE for each in items):
            raise self.wrong(name, f"at most {MAX_LAYERS} ids")
        return tuple(cast("list[int]", items))

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        """A list of pairs of whole numbers from 0 on; empty if the setting is missing."""
        value = self.get(name)
        if value is None:
            return ()
        found: list[tuple[int, int]] = []
        for each in cast("list[object]", value) if isinstance(value, list) else [None]:
            pair = cast("list[object]", each) if isinstance(each, list) else []
            if len(pair) != 2 or not all(type(item) is int and 0 <= item <= MAX_SIZE for item in pair):
                raise self.wrong(name, "a list of pairs of numbers from 0 on")
            found.append(cast("tuple[int, int]", tuple(pair)))
        if len(found) > MAX_LAYERS:
            raise self.wrong(name, f"at most {MAX_LAYERS} pairs")
        return tuple(found)

    def inner(self, name: str) -> "Fields | None":
        """The settings within a setting that is a JSON object; None if the setting is missing."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(cast("dict[str, object]", value), f"{self.where}: {name}")

    def wrong(self, name: str, expected: str) -> InvalidArgumentError:
        """The error for a setting whose value is not as expected."""
        return InvalidArgumentError(f"{self.where}: {name} is {shown(self._values.get(name))}; expected {expected}")

    def refuse_unread(self, ignored: Collection[str] = ()) -> None:
        """Refuse settings that were never read, unless they mean "none" (null, false, 0 or empty).

        Raises:
            UnsupportedError: there are such settings. Without this error, the model would be computed as if they were
                not set.
        """
        unread = {
            name: value
            for name, value in self._values.items()
            if name not in self._read and name not in ignored and _says_something(value)
        }
        if unread:
            settings = ", ".join(f"{printable(name)} = {shown(value)}" for name, value in list(unread.items())[:5])
            raise UnsupportedError(
                f"{self.where}: {len(unread)} settings are not known here: {settings}. What they change would not be "
                "computed; remove those that change nothing"
            )


def shown(value: object) -> str:
    """A value as text for error messages: short, in one line."""
    length = len(value) if isinstance(value, Sized) else 0
    if length > 8 and not isinstance(value, str):
        return f"a {type(value).__name__} of {length}"
    # Python refuses to convert an integer of very many digits to text, so only its size is shown.
    if type(value) is int and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    text = printable(repr(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def _says_something(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.any())
    return bool(value)
