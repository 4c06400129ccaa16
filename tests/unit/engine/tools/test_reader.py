import json

import pytest

from triune.engine.tools.pieces import CallArguments, CallBegin, Piece, Text
from triune.engine.tools.reader import ToolCallReader

TOOLS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "parts": {"type": "array"}},
    },
    "now": {},
}


def read(answer: str, size: int = 10**9) -> tuple[str, list[tuple[str, str]]]:
    """The text of an answer that arrives in pieces of `size` characters, and its calls: names and arguments."""
    reader = ToolCallReader(TOOLS)
    pieces = [piece for at in range(0, len(answer), size) for piece in reader.add(answer[at : at + size])]
    return parts(pieces + reader.end())


def parts(pieces: list[Piece]) -> tuple[str, list[tuple[str, str]]]:
    text, calls = "", list[tuple[str, str]]()
    for piece in pieces:
        match piece:
            case Text(added):
                text += added
            case CallBegin(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case CallArguments(index, added):
                assert index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + added)
    return text, calls


ROME = '{"city": "Rome"}'
WEATHER = ("weather", ROME)

FORMATS = {
    "hermes": (f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>', "", [WEATHER]),
    "hermes, text before": (
        f'Let me look.\n\n<tool_call>{{"name": "weather", "arguments": {ROME}}}</tool_call>',
        "Let me look.",
        [WEATHER],
    ),
    "hermes, two": (
        f'<tool_call>{{"name": "weather", "arguments": {ROME}}}</tool_call>\n'
        '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
        "",
        [WEATHER, ("now", "{}")],
    ),
    "hermes, text after": (
        f'<tool_call>{{"name": "weather", "arguments": {ROME}}}</tool_call> Done.',
        " Done.",
        [WEATHER],
    ),
    "hermes, arguments first": (f'<tool_call>{{"arguments": {ROME}, "name": "weather"}}</tool_call>', "", [WEATHER]),
    "hermes, arguments as a string": (
        f'<tool_call>{{"name": "weather", "arguments": {json.dumps(ROME)}}}</tool_call>',
        "",
        [WEATHER],
    ),
    "hermes, no arguments": ('<tool_call>{"name": "now"}</tool_call>', "", [("now", "{}")]),
    "hermes, null": ('<tool_call>{"name": "now", "arguments": null}</tool_call>', "", [("now", "{}")]),
    "hermes, further members": (
        f'<tool_call>{{"name": "weather", "arguments": {ROME}, "id": 7, "x": [1, {{}}]}}</tool_call>',
        "",
        [WEATHER],
    ),
    "hermes, an unknown tool": ('<tool_call>{"name": "fly", "arguments": {}}</tool_call>', "", [("fly", "{}")]),
    "hermes, end without tag": (f'<tool_call>{{"name": "weather", "arguments": {ROME}}}', "", [WEATHER]),
    "smollm, a list": (
        f'<tool_call>[{{"name": "weather", "arguments": {ROME}}}, {{"name": "now", "arguments": {{}}}}]</tool_call>',
        "",
        [WEATHER, ("now", "{}")],
    ),
    "qwen coder": (
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "<parameter=parts>[1, 2]</parameter>\n</function>\n</tool_call>",
        "",
        [("weather", '{"city": "Rome", "days": 3, "parts": [1, 2]}')],
    ),
    "qwen coder, a string that looks like a number": (
        "<tool_call><function=weather><parameter=city>7</parameter><parameter=other>b</parameter></function></tool_call>",
        "",
        [("weather", '{"city": "7", "other": "b"}')],
    ),
    "mistral, a list": (
        f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ROME}}}, {{"name": "now", "arguments": {{}}}}]',
        "",
        [WEATHER, ("now", "{}")],
    ),
    "mistral, names": (f"[TOOL_CALLS]weather[ARGS]{ROME}[TOOL_CALLS]now{{}}", "", [WEATHER, ("now", "{}")]),
    "mistral, with an id": (f"Yes.[TOOL_CALLS]weather[CALL_ID]abc123XYZ[ARGS]{ROME}", "Yes.", [WEATHER]),
    "mistral, without its tag": (f'[{{"name": "weather", "arguments": {ROME}}}]', "", [WEATHER]),
    "llama": (f'{{"name": "weather", "parameters": {ROME}}}', "", [WEATHER]),
    "llama, spaces": (f'\n {{"name": "weather", "parameters": {ROME}}}\n', "", [WEATHER]),
    "llama, type": (f'{{"type": "function", "name": "weather", "parameters": {ROME}}}', "", [WEATHER]),
    "llama, two": (
        f'{{"name": "weather", "parameters": {ROME}}}; {{"name": "now", "parameters": {{}}}}',
        "",
        [WEATHER, ("now", "{}")],
    ),
    "llama, with its tag": (f'<|python_tag|>{{"name": "fly", "parameters": {ROME}}}', "", [("fly", ROME)]),
    "strings with brackets": (
        '<tool_call>{"name": "weather", "arguments": {"city": "a}\\"{[", "b": ["]", {"c": "\\\\"}]}}</tool_call>',
        "",
        [("weather", '{"city": "a}\\"{[", "b": ["]", {"c": "\\\\"}]}')],
    ),
    "cut off in the arguments": (
        '<tool_call>{"name": "weather", "arguments": {"city": "Ro',
        "",
        [("weather", '{"city": "Ro')],
    ),
}

TEXTS = [
    "Hello, world.",
    "",
    "  \n ",
    " spaces kept \n",
    "a < b and c[0] > d",
    "use <tool_call> and </tool_call> as tags, or [TOOL_CALLS].",
    "<tool_call>no JSON</tool_call>",
    '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
    '<tool_call>{"name": "weather", "arguments"',
    "<tool_call><function=weather><parameter=city>Rome",
    "<tool_call><tool_call",
    "[TOOL_CALLS]",
    "[TOOL_CALLS][]",
    '{"name": "Ada", "arguments": {}}',
    '{"name": "weather"}',
    '{"answer": 42}',
    '[1, 2, {"name": "weather"}]',
    "{",
    '{"name": "weather", "parameters"',
    '<|python_tag|>brave_search.call(query="x")',
    '```json\n{"name": "weather", "parameters": {}}\n```',
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 3, 10**9])
def test_calls(name: str, size: int) -> None:
    answer, text, calls = FORMATS[name]
    assert read(answer, size) == (text, calls)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 10**9])
def test_what_is_no_call_stays_text(text: str, size: int) -> None:
    assert read(text, size) == (text, [])


def test_a_call_within_what_looks_like_one() -> None:
    answer = f'<tool_call>oh <tool_call>{{"name": "weather", "arguments": {ROME}}}</tool_call>'
    assert read(answer) == ("<tool_call>oh", [WEATHER])


def test_arguments_arrive_before_the_call_is_complete() -> None:
    reader = ToolCallReader(TOOLS)
    assert parts(reader.add('<tool_call>{"name": "weather", "arguments": {"city": "Ro')) == (
        "",
        [("weather", '{"city": "Ro')],
    )
    assert reader.add("me") == [CallArguments(0, "me")]


def test_text_is_not_held_back_longer_than_needed() -> None:
    reader = ToolCallReader(TOOLS)
    assert reader.add("a <") == [Text("a")]
    assert reader.add("b") == [Text(" <"), Text("b")]
    assert reader.add('{"name') == [Text('{"name')]


def test_deep_nesting_is_text() -> None:
    deep = "[" * 100_000
    assert read(f'<tool_call>{{"name": "weather", "arguments": {deep}') == (
        f'<tool_call>{{"name": "weather", "arguments": {deep}',
        [],
    )
