"""Write the answers of Anthropic's endpoint `messages`, as a whole or as events."""

import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from triune.engine.generation import Placement
from triune.engine.sequence import FinishReason
from triune.engine.tools.pieces import CallArguments, CallBegin, Reasoning, Text
from triune.frontends.anthropic.requests import MessagesRequest
from triune.frontends.bodies.budget import Reservation
from triune.frontends.text.answers import Cost, Part
from triune.frontends.text.blocks import Block, add_to_blocks, call_id


class MessageAnswer:
    """Writes the answer to one request to `messages`."""

    def __init__(self, request: MessagesRequest, placement: Placement, num_prompt_tokens: int) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        num_prompt_tokens: the number of tokens of the prompt.
        """
        self._request = request
        self._placement = placement
        self._num_prompt_tokens = num_prompt_tokens
        self._cost = Cost()
        self._id = f"msg_{secrets.token_hex(12)}"
        self._part: Part | None = None

    async def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """Yield the answer as server-sent events."""
        num_blocks, kind = 0, None
        async for part in parts:
            self._cost.add(part)
            if self._part is None:
                yield _event("message_start", message=self._document([], {"stop_reason": None, "stop_sequence": None}))
            self._part = part
            for piece in part.pieces:
                if isinstance(piece, CallBegin) or (not isinstance(piece, CallArguments) and type(piece) is not kind):
                    if kind is not None:
                        yield _event("content_block_stop", index=num_blocks - 1)
                    kind, num_blocks = type(piece), num_blocks + 1
                    yield _begun(num_blocks - 1, piece)
                match piece:
                    case Reasoning(text):
                        yield _delta(num_blocks - 1, {"type": "thinking_delta", "thinking": text})
                    case Text(text):
                        yield _delta(num_blocks - 1, {"type": "text_delta", "text": text})
                    case CallArguments(_, text):
                        yield _delta(num_blocks - 1, {"type": "input_json_delta", "partial_json": text})
                    case CallBegin():
                        pass
        if kind is not None:
            yield _event("content_block_stop", index=num_blocks - 1)
        end: dict[str, Any] = {"delta": self._ending(), "usage": self._usage()}
        if self._request.has_report:
            end["triune"] = await self._cost.report(self._placement)
        yield _event("message_delta", **end)
        yield _event("message_stop")

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> Sequence[bytes]:
        """The answer as one JSON document, in pieces. The request's reservation of memory grows by their size."""
        blocks: list[Block] = []
        async for part in parts:
            self._cost.add(part)
            held.grow(part.num_bytes)
            add_to_blocks(blocks, part)
            self._part = part
        document = self._document([_encoded(block) for block in blocks], self._ending())
        if self._request.has_report:
            document["triune"] = await self._cost.report(self._placement)
        return [orjson.dumps(document)]

    def _document(self, content: list[Any], ending: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": content,
            **ending,
            "usage": self._usage(),
        }

    def _ending(self) -> dict[str, Any]:
        """The reason why the answer ended, in Anthropic's terms."""
        part = self._part
        reason, sequence = "end_turn", None
        if part is None:
            return {"stop_reason": reason, "stop_sequence": sequence}
        if part.delta.finish_reason is FinishReason.LENGTH:
            is_full = self._cost.num_tokens < (self._request.generation.max_tokens or 0)
            reason = "model_context_window_exceeded" if is_full else "max_tokens"
        elif part.num_calls:
            reason = "tool_use"
        elif isinstance(part.delta.stop, str):
            reason, sequence = "stop_sequence", part.delta.stop
        return {"stop_reason": reason, "stop_sequence": sequence}

    def _usage(self) -> dict[str, Any]:
        """The usage of the answer so far. Anthropic counts cached tokens separately."""
        num_cached = self._cost.num_cached_tokens
        return {
            "input_tokens": self._num_prompt_tokens - num_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": num_cached,
            "output_tokens": self._cost.num_tokens,
        }


def _encoded(block: Block) -> dict[str, Any]:
    if block.is_reasoning:
        return _thinking(block.text)
    if block.name is None:
        return {"type": "text", "text": block.text}
    try:
        arguments = orjson.loads(block.text)
    except orjson.JSONDecodeError:
        arguments = None
    # Clients need a JSON object. If the model wrote something else, or its answer was cut off, the text becomes the
    # member `arguments` of an object. An object is passed on as text, since it may be nested deeper than orjson can
    # encode.
    is_object = isinstance(arguments, dict)
    return _tool_use(block.id, block.name, orjson.Fragment(block.text) if is_object else {"arguments": block.text})


def _tool_use(tool_use_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_use_id, "name": name, "input": arguments}


def _thinking(text: str) -> dict[str, Any]:
    # The signature is empty: Anthropic uses it to recognise its own reasoning.
    return {"type": "thinking", "thinking": text, "signature": ""}


def _begun(index: int, piece: Text | Reasoning | CallBegin) -> bytes:
    match piece:
        case Text():
            block: dict[str, Any] = {"type": "text", "text": ""}
        case Reasoning():
            block = _thinking("")
        case CallBegin(_, name):
            block = _tool_use(call_id(), name, {})
    return _event("content_block_start", index=index, content_block=block)


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", index=index, delta=delta)


def _event(name: str, /, **content: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name, **content}))
