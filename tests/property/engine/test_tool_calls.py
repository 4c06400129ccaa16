"""However the text of an answer is divided, the same calls and the same text are found in it."""

from hypothesis import given
from hypothesis import strategies as st

from triune.engine.tools.pieces import CallArguments, CallBegin, Piece, Text
from triune.engine.tools.reader import ToolCallReader

TOOLS = {"f": {"properties": {"a": {"type": "string"}}}, "g": {}}

# Answers out of what formats are made of, so that most are nearly calls.
FRAGMENTS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]", "[CALL_ID]", "<function=", ">"),
        *("</function>", "<parameter=", "</parameter>", "{", "}", "[", "]", '"', "\\", ",", ":", ";", " ", "\n", "<"),
        *('"name"', '"f"', '"g"', '"arguments"', '"parameters"', "f", "a", "1", "null", "é"),
        *('{"name": "f", "arguments": {"a": "x"}}', '{"name": "g", "parameters": {}}'),
        "<function=f><parameter=a>1</parameter></function>",
    ]
)
ANSWERS = st.lists(FRAGMENTS, max_size=12).map("".join)


def merged(pieces: list[Piece]) -> list[Piece]:
    """The pieces, with neighbours that are parts of one text or of one call's arguments joined."""
    result: list[Piece] = []
    for piece in pieces:
        match (result[-1] if result else None, piece):
            case (Text(before), Text(added)):
                result[-1] = Text(before + added)
            case (CallArguments(index, before), CallArguments(_, added)):
                result[-1] = CallArguments(index, before + added)
            case _:
                result.append(piece)
    return result


@given(ANSWERS, st.data())
def test_any_division_gives_the_same(answer: str, data: st.DataObject) -> None:
    whole = ToolCallReader(TOOLS)
    expected = merged(whole.add(answer) + whole.end())
    places = data.draw(st.lists(st.integers(0, len(answer)), max_size=8).map(sorted))
    reader, pieces = ToolCallReader(TOOLS), list[Piece]()
    for start, end in zip([0, *places], [*places, len(answer)], strict=True):
        pieces += reader.add(answer[start:end])
    assert merged(pieces + reader.end()) == expected


@given(ANSWERS)
def test_nothing_is_lost_without_calls(answer: str) -> None:
    reader = ToolCallReader(TOOLS)
    pieces = reader.add(answer) + reader.end()
    if not any(isinstance(piece, CallBegin) for piece in pieces):
        assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == answer
