"""Whatever JSON a request for text is, it is read or refused as the client's mistake, and what is read can be sent to
another process.
"""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.core.errors import InvalidArgumentError
from triune.frontends.anthropic.requests import read_count, read_messages
from triune.frontends.openai.requests import read_chat, read_completion, read_embedding
from triune.frontends.openai.response_requests import read_response
from triune.frontends.text.fields import FieldError, Fields

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
MESSAGE = {"role": "user", "content": "x"}
PARTS = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}
RIGHT: dict[Callable[[Fields], Any], dict[str, Any]] = {
    read_chat: {
        "model": "m",
        "messages": [
            MESSAGE,
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "y"},
            PARTS,
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "logit_bias": {"1": 2},
        "stop": ["x"],
        "stream_options": {"include_usage": True},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {}}},
        "chat_template_kwargs": {"a": 1},
        "logprobs": True,
        "top_logprobs": 2,
        "n": 2,
        "seed": 3,
        "temperature": 1,
    },
    read_completion: {"model": "m", "prompt": ["x", [1, 2]], "stop_token_ids": [1], "echo": True, "best_of": 1},
    read_embedding: {"model": "m", "input": [[1], "x"], "encoding_format": "base64", "dimensions": 3},
    read_response: {
        "model": "m",
        "input": [
            MESSAGE,
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "y"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "schema": {}}},
        "include": ["message.output_text.logprobs"],
    },
    read_messages: {
        "model": "m",
        "max_tokens": 3,
        "system": [{"type": "text", "text": "x"}],
        "messages": [
            MESSAGE,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "y"}]},
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "f"},
        "output_config": {"format": {"type": "json_schema", "schema": {}}},
    },
    read_count: {"model": "m", "messages": [MESSAGE, PARTS]},
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.sampled_from(["", "x", "text", "function", "user", "auto", "json_schema", "é\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "text", "content", "function", "role", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A document with another value at a path."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("read", RIGHT, ids=lambda each: each.__name__)
@given(data=st.data())
def test_requests_are_read_or_refused(read: Callable[[Fields], Any], data: st.DataObject) -> None:
    document = RIGHT[read]
    for path in data.draw(st.lists(st.sampled_from(places(document)), max_size=2)):
        try:
            document = changed(document, path, data.draw(VALUES))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has removed the place
    if data.draw(st.booleans()):
        document = {
            **document,
            data.draw(st.sampled_from(["x", "stop", "top_k", "metadata", "thinking"])): data.draw(VALUES),
        }
    result: Any
    try:
        result = read(Fields(document))
    except InvalidArgumentError as error:
        result = error
    again = pickle.loads(pickle.dumps(result))
    # Not the objects, since NaN is not itself.
    assert repr(again) == repr(result)
    assert not isinstance(result, FieldError) or again.param == result.param
