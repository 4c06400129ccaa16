"""The limits of one rendering of a chat template: steps, time and characters. Work is charged before it is done."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from triune.core.errors import InvalidArgumentError

MAX_STEPS: Final = 500_000
"""The largest number of steps of a rendering. Each pass through a loop, each call, each filter and each element of a
list is one step. A conversation of a thousand messages takes about ten thousand.
"""
MAX_SECONDS: Final = 5.0
MAX_CHARACTERS: Final = 1 << 26
"""The largest number of characters that a rendering may write, join, copy or put into lists, together."""

_STEPS_A_LOOK: Final = 256
"""The number of steps after which the clock is read again."""
_MAX_DEPTH: Final = 64
"""The deepest nesting of lists and objects in a value that a template writes."""
_MAX_NUMBER_BITS: Final = 1024
_MAX_WIDTH_DIGITS: Final = 3
_WIDE: Final = re.compile(rf"[0-9]{{{_MAX_WIDTH_DIGITS + 1}}}|\*|\{{[^{{}}]*\{{")
"""Matches parts of a format with which a short format can write a very long text: a width of many digits, or a width
that is an argument ("*").
"""


class Budget:
    """The remaining budget of one template rendering. Use it in one thread only."""

    def __init__(self) -> None:
        self._steps = 0
        self._characters = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """Charge one step.

        Raises:
            InvalidArgumentError: the budget is used up. All other methods raise it, too.
        """
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _over(f"takes more than {MAX_STEPS} steps")
        if self._steps % _STEPS_A_LOOK == 0 and time.monotonic() > self._deadline:
            raise _over(f"takes longer than {MAX_SECONDS:g} s")

    def charge(self, characters: int) -> None:
        """Charge `characters` characters, before the template creates them."""
        self._characters += characters
        if self._characters > MAX_CHARACTERS:
            raise _over(f"makes more than {MAX_CHARACTERS} characters")

    def charge_text(self, *values: object) -> None:
        """Charge the text of values when they are written out, including all elements of lists and objects."""
        stack: list[tuple[object, int]] = [(value, 0) for value in values]
        while stack:
            value, depth = stack.pop()
            if depth > _MAX_DEPTH:
                raise _over(f"nests lists more than {_MAX_DEPTH} deep")
            if isinstance(value, str):
                self.charge(len(value))
                continue
            self.step()
            self.charge(8)
            if isinstance(value, int):
                self.charge(value.bit_length() // 3)
            elif isinstance(value, (dict, Mapping)):
                for pair in cast("Mapping[object, object]", value).items():
                    stack.extend((each, depth + 1) for each in pair)
            elif isinstance(value, (list, tuple)):
                stack.extend((each, depth + 1) for each in cast("list[object]", value))

    def charge_operation(self, operator: str, left: object, right: object) -> None:
        """Charge an operation on two values, one of which may be a text or a list."""
        self.step()
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, (str, list, tuple)) and isinstance(times, int):
                    self.charge(max(0, len(cast("str", many)) * times))
        elif operator == "+":
            for value in (left, right):
                if isinstance(value, (str, list, tuple)):
                    self.charge(len(cast("str", value)))
        elif operator == "%" and isinstance(left, str):
            self.charge_format(left, right)
        if operator in {"*", "**"} and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _MAX_NUMBER_BITS:
                raise _over(f"computes a number of {bits} bits")

    def charge_format(self, pattern: str, *values: object) -> None:
        """Charge the longest text that formatting `values` by `pattern` can give. Raises an error if a width in
        `pattern` has more than three digits or is itself one of the values.
        """
        if _WIDE.search(pattern):
            raise _over(f"formats with a width of more than {_MAX_WIDTH_DIGITS} digits, or one that is given")
        places = pattern.count("{") + pattern.count("%")
        self.charge(len(pattern) + places * 10**_MAX_WIDTH_DIGITS)
        # Each placeholder of the format may write all of the values.
        for _ in range(places):
            self.charge_text(*values)

    def charge_join(self, separator: str, values: object) -> list[Any] | object:
        """Charge the text of `separator.join(values)`. Returns the values as a list, since an iterator can be read only
        once; a text, or a value that is not iterable, is returned as it is.
        """
        if isinstance(values, str) or not isinstance(values, Iterable):
            self.charge_text(values)
            return cast("object", values)
        items = list(self.counted(cast("Iterable[object]", values)))
        self.charge(len(separator) * len(items))
        self.charge_text(*items)
        return items

    def charge_replace(self, text: str, old: str, new: str) -> None:
        """Charge the text that `text.replace(old, new)` gives."""
        self.charge(len(text) + text.count(old) * len(new))

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield `values`, and charge one step to the budget for each."""
        for value in values:
            self.step()
            yield value


def _over(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the chat template was stopped: it {what}")
