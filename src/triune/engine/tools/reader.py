"""Finds calls of tools in the text of a model while it arrives.

Models are trained on different formats of calls. Each format is recognised by its beginning:

- Hermes, Qwen 2.5 and 3, SmolLM: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, or a list of such objects;
- Qwen 3 Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`;
- Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`, or `[TOOL_CALLS]NAME[ARGS]{...}`;
- Llama 3: `{"name": ..., "parameters": {...}}`, with `<|python_tag|>` before it or as the whole answer. Since an answer
  may be JSON without being a call, the name must be one of the request's tools if there is no tag. The same holds for
  a list of such objects: some tokenizers leave `[TOOL_CALLS]` out of the text.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from triune.engine.tools.cursor import Cursor, Reading, decoded
from triune.engine.tools.pieces import CallArguments, CallBegin, Piece, Text

_TAG, _MISTRAL, _PYTHON = "<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"
_OPENINGS: Final = (_TAG, _MISTRAL, _PYTHON)
MARKERS: Final = frozenset({_TAG, "</tool_call>", _MISTRAL, "[ARGS]", "[CALL_ID]", _PYTHON})
"""Texts that are special tokens of some models. They must be kept in the answer's text, since the reader looks for
them.
"""

_PLAIN: Final = re.compile(r"[^<\[]*[^<\[\s]")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9]")
_MAX_NAME: Final = 256
_ARGUMENTS: Final = ("arguments", "parameters")
_KEYS: Final = ("name", "type", "id", *_ARGUMENTS)


class ToolCallReader:
    """Divides the text of one answer into text and tool calls. It does not matter in which pieces the text arrives.

    Text that begins like a call, but is not one, stays text. White space around calls is dropped.

    Attributes:
        num_calls: the calls that have begun.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        """Args:
        tools: the JSON schema of the parameters of each tool that the request offers, by name.
        """
        self.num_calls = 0
        self._tools = tools
        self._cursor = Cursor()
        self._pieces: list[Piece] = []
        self._spaces = ""
        self._reading = self._read()
        next(self._reading)

    def add(self, text: str) -> list[Piece]:
        """Add the next piece of the answer's text. Returns the pieces that are certain so far."""
        if text:
            self._cursor.text += text
            next(self._reading)
        return self._taken()

    def end(self) -> list[Piece]:
        """Call this when the answer has ended: returns the remaining pieces. No text may follow."""
        self._cursor.is_ended = True
        for _ in self._reading:
            pass
        return self._taken()

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _read(self) -> Reading[None]:
        cursor = self._cursor
        yield from self._untagged()
        while letter := (yield from cursor.peek()):
            if letter.isspace():
                self._spaces += cursor.spaces()
            elif letter in "<[":
                start = cursor.at
                opening = yield from cursor.take(*_OPENINGS)
                if not opening or not (yield from self._calls(opening)):
                    # This was no call. Take only its first characters as text, since a call may begin behind them.
                    cursor.at = start
                    self._write(opening or letter)
            else:
                plain = _PLAIN.match(cursor.text, cursor.at)
                self._write(letter if plain is None else plain[0])
            cursor.forget()
        if not self.num_calls and self._spaces:
            self._pieces.append(Text(self._spaces))

    def _write(self, text: str) -> None:
        """Add `text`, which stands at the cursor, to the answer's text, and skip it."""
        self._pieces.append(Text(self._spaces + text))
        self._spaces = ""
        self._cursor.at += len(text)

    def _begin(self, name: str) -> None:
        self._pieces.append(CallBegin(self.num_calls, name))
        self.num_calls += 1
        self._spaces = ""

    def _argue(self, text: str) -> None:
        self._pieces.append(CallArguments(self.num_calls - 1, text))

    def _calls(self, opening: str) -> Reading[bool]:
        """Read a call after its opening. Returns False if there is no call: then no piece was added."""
        cursor = self._cursor
        if opening == _PYTHON:
            return (yield from self._objects())
        if opening == _MISTRAL:
            return (yield from (self._list() if (yield from cursor.skip_spaces()) == "[" else self._named()))
        first = yield from cursor.skip_spaces()
        if (yield from cursor.take("<function=")):
            is_call = yield from self._xml()
        else:
            is_call = yield from (self._list() if first == "[" else self._object())
        if is_call:
            yield from cursor.skip_spaces()
            yield from cursor.take("</tool_call>")
        return is_call

    def _untagged(self) -> Reading[None]:
        """Read calls that have no tag. They count only if the answer begins with them."""
        cursor = self._cursor
        if not self._tools:
            return
        first = yield from cursor.skip_spaces()
        if first == "{":
            is_call = yield from self._objects(is_known=True)
        else:
            is_call = first == "[" and (yield from self._list(is_known=True))
        if not is_call:
            cursor.at = 0

    def _objects(self, *, is_known: bool = False) -> Reading[bool]:
        """Read objects that are calls, one after another, possibly with semicolons between them.

        Args:
            is_known: as in `_object`.

        Returns:
            whether there is at least one call.
        """
        cursor = self._cursor
        yield from cursor.skip_spaces()
        if not (yield from self._object(is_known=is_known)):
            return False
        while True:
            start = cursor.at
            yield from cursor.skip_spaces()
            if (yield from cursor.take(";")):
                yield from cursor.skip_spaces()
            if not (yield from self._object(is_known=is_known)):
                cursor.at = start
                return True

    def _list(self, *, is_known: bool = False) -> Reading[bool]:
        """Read a JSON list of calls. It ends at its bracket, or at the first element that is not a call.

        Args:
            is_known: as in `_object`.

        Returns:
            whether there is at least one call.
        """
        cursor, num_before = self._cursor, self.num_calls
        yield from cursor.take("[")
        while True:
            letter = yield from cursor.skip_spaces()
            if letter == "," and self.num_calls > num_before:
                cursor.at += 1
                yield from cursor.skip_spaces()
            elif letter == "]":
                cursor.at += self.num_calls > num_before
                return self.num_calls > num_before
            if not (yield from self._object(is_known=is_known)):
                return self.num_calls > num_before

    def _object(self, *, is_known: bool = False) -> Reading[bool]:
        """Read a call that is an object with a name and arguments. Its arguments are passed on as they arrive, unless
        they come before the name.

        Args:
            is_known: whether the object counts as a call only if it names one of the request's tools and has arguments,
                and all keys before them are in `_KEYS`.

        Returns:
            whether the object is a call. If not, nothing was read.
        """
        cursor = self._cursor
        start = cursor.at
        if not (yield from cursor.take("{")):
            return False
        name: str | None = None
        arguments: str | None = None
        while (letter := (yield from cursor.skip_spaces())) != "}":
            if letter == ",":
                cursor.at += 1
                continue
            key = _string((yield from cursor.json()) if letter == '"' else None)
            colon = yield from cursor.skip_spaces()
            if key is None or colon != ":" or (is_known and key not in _KEYS):
                cursor.at = start
                return False
            cursor.at += 1
            first = yield from cursor.skip_spaces()
            if key in _ARGUMENTS and name is not None and first == "{":
                self._begin(name)
                cursor.forget()
                yield from cursor.json(self._argue)
                yield from self._rest()
                return True
            value = yield from cursor.json()
            if key == "name":
                name = _string(value)
            elif key in _ARGUMENTS and value is not None:
                arguments = _string(value) if first == '"' else value
            if value is None or (key == "name" and not self._may_call(name, is_known=is_known)):
                cursor.at = start
                return False
        if name is None or (is_known and arguments is None):
            cursor.at = start
            return False
        cursor.at += 1
        self._begin(name)
        self._argue("{}" if arguments in (None, "null", "") else arguments)
        return True

    def _may_call(self, name: str | None, *, is_known: bool) -> bool:
        return bool(name) and (not is_known or name in self._tools)

    def _rest(self) -> Reading[None]:
        """Skip the rest of an object whose call was read."""
        cursor = self._cursor
        while (letter := (yield from cursor.skip_spaces())) and letter != "}":
            if letter in ",:":
                cursor.at += 1
            elif (yield from cursor.json()) is None:
                return
        yield from cursor.take("}")

    def _named(self) -> Reading[bool]:
        """Read the call `NAME[CALL_ID]ID[ARGS]{...}`. Returns False if there is none."""
        cursor = self._cursor
        name = yield from cursor.word(_NAME)
        if (yield from cursor.take("[CALL_ID]")):
            yield from cursor.word(_IDENTIFIER)
        yield from cursor.take("[ARGS]")
        if (yield from cursor.skip_spaces()) != "{" or not name:
            return False
        self._begin(name)
        cursor.forget()
        yield from cursor.json(self._argue)
        return True

    def _xml(self) -> Reading[bool]:
        """Read the call `NAME><parameter=KEY>VALUE</parameter>...</function>`. Returns False if there is none."""
        cursor = self._cursor
        name = yield from cursor.until(">", _MAX_NAME)
        if not name:
            return False
        properties = cast("Mapping[str, Any]", self._tools.get(name, {}).get("properties") or {})
        arguments: dict[str, Any] = {}
        while True:
            yield from cursor.skip_spaces()
            if (yield from cursor.take("</function>")):
                break
            if not (yield from cursor.take("<parameter=")):
                return False
            key = yield from cursor.until(">", _MAX_NAME)
            value = yield from cursor.until("</parameter>")
            if not key or value is None:
                return False
            arguments[key] = _typed(value.removeprefix("\n").removesuffix("\n"), properties.get(key))
        self._begin(name.strip())
        self._argue(json.dumps(arguments, ensure_ascii=False))
        return True


def _string(text: str | None) -> str | None:
    """The value of a JSON string; None if the text is not a JSON string."""
    try:
        value = None if text is None else decoded(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _typed(text: str, schema: Any) -> Any:
    """The value of a parameter, whose text is JSON, or plain text if its schema says that it is a string. A text that
    is not valid JSON is returned as it is.
    """
    kind: Any = cast("Mapping[str, Any]", schema).get("type") if isinstance(schema, dict) else None
    if kind == "string":
        return text
    try:
        return decoded(text)
    except ValueError:
        return text
