"""Write the answers of OpenAI's endpoint `chat/completions`, as a whole or as events."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from triune.engine.generation import Placement
from triune.engine.sequence import FinishReason
from triune.engine.tools.pieces import CallArguments, CallBegin, Reasoning, Text
from triune.frontends.bodies.budget import Reservation
from triune.frontends.openai.choices import Choices
from triune.frontends.openai.logprobs import chat_logprobs
from triune.frontends.openai.requests import TextRequest
from triune.frontends.text.answers import Part
from triune.frontends.text.blocks import Block, add_to_blocks, call_id
from triune.frontends.text.json_parts import JsonParts, encoded_elements

_WHOLE = "chat.completion"
CHAT_PREFIX: Final = "chatcmpl"
"""The prefix of the ids of chats."""

_CHUNK = "chat.completion.chunk"


def finish_reason(part: Part) -> str | None:
    """The reason why an answer ended, as OpenAI's `finish_reason`; None if it continues."""
    reason = part.delta.finish_reason
    if reason is FinishReason.STOP and part.num_calls:
        return "tool_calls"
    return None if reason is None else reason.value


class ChatAnswer:
    """Writes the answers to one request to `chat/completions`."""

    def __init__(self, request: TextRequest, placement: Placement) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        """
        self._choices = Choices(request, placement, CHAT_PREFIX)

    async def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """Yield the answer as events. The events of one part are sent together."""
        begun: set[int] = set()
        async for part in parts:
            self._choices.cost.add(part)
            chunks: list[bytes] = []
            if part.index not in begun:
                begun.add(part.index)
                chunks.append(self._chunk(part, {"role": "assistant", "content": ""}))
            logprobs = chat_logprobs(part.delta.logprobs) or None
            for delta in _deltas(part) or ([{}] if logprobs else []):
                chunks.append(self._chunk(part, delta, logprobs))
                logprobs = None
            if part.delta.finish_reason is not None:
                chunks.append(self._chunk(part, {}, reason=finish_reason(part)))
            if chunks:
                yield b"".join(chunks)
        yield await self._choices.end(_CHUNK)

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> Sequence[bytes]:
        """The answer as one JSON document, in pieces. The request's reservation of memory grows by their size."""
        return await self._choices.whole(_WHOLE, parts, held, lambda _: _Choice())

    def _chunk(self, part: Part, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": part.index, "delta": delta, "logprobs": None, "finish_reason": reason}
        if logprobs is not None:
            choice["logprobs"] = {"content": logprobs}
        return self._choices.chunk(_CHUNK, choice)


def _deltas(part: Part) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    for piece in part.pieces:
        match piece:
            case Text(text):
                deltas.append({"content": text})
            case Reasoning(text):
                deltas.append({"reasoning_content": text})
            case CallBegin(index, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": call_id(), "type": "function", "function": function}
                deltas.append({"tool_calls": [call]})
            case CallArguments(index, text):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    return deltas


class _Choice:
    """One answer, which grows as the model generates it."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._logprobs: list[bytes] = []
        self._reason: str | None = None

    def add(self, part: Part) -> None:
        add_to_blocks(self._blocks, part)
        # Encode the logprobs of each part as it comes: thousands of them at once would block the event loop at the end.
        if part.delta.logprobs:
            self._logprobs.append(encoded_elements(chat_logprobs(part.delta.logprobs)))
        self._reason = finish_reason(part)

    def write(self, index: int, json: JsonParts) -> None:
        text = "".join(block.text for block in self._blocks if block.is_text)
        reasoning = "".join(block.text for block in self._blocks if block.is_reasoning)
        calls = [
            {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.text}}
            for block in self._blocks
            if block.name is not None
        ]
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        json.open_object({"index": index, "message": message, "finish_reason": self._reason}, "logprobs")
        if self._logprobs:
            json.open_object({"refusal": None}, "content")
            json.add_array(self._logprobs)
            json.add(b"}}")
        else:
            json.add(b"null}")
