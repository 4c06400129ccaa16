"""Write the answers of OpenAI's endpoint `responses`, as a whole or as events."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from triune.core.errors import TriuneError
from triune.engine.generation import Placement
from triune.engine.sequence import FinishReason
from triune.engine.tools.pieces import CallArguments, CallBegin, Reasoning, Text
from triune.frontends.bodies.budget import Reservation
from triune.frontends.openai.logprobs import chat_logprobs
from triune.frontends.openai.response_requests import ResponseRequest
from triune.frontends.text.answers import Cost, Part
from triune.frontends.text.blocks import Block
from triune.frontends.text.errors import message_of, told
from triune.frontends.text.json_parts import JsonParts, encoded_elements


class ResponseAnswer:
    """Writes the answer to one request as items, each a message, reasoning or a call of a tool."""

    def __init__(self, request: ResponseRequest, placement: Placement, held: Reservation) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        held: the request's reservation of memory, which grows with the answer: the last event repeats all of it.
        """
        self._request = request
        self._placement = placement
        self._held = held
        self._cost = Cost()
        self._id = f"resp_{secrets.token_hex(24)}"
        self._created = int(time.time())
        self._items: list[_Item] = []
        self._logprobs: list[dict[str, Any]] = []
        self._number = 0

    async def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """Yield the answer as server-sent events."""
        reason = None
        async for part in parts:
            self._cost.add(part)
            self._held.grow(2 * part.num_bytes)
            if not self._number:
                for name in ("response.created", "response.in_progress"):
                    yield self._event(name, response=self._document("in_progress"))
            for event in self._grow(part):
                yield event
            reason = part.delta.finish_reason or reason
        for event in [*([] if self._items else self._begin_text(Block(None))), *self._end_item()]:
            yield event
        status = _status(reason)
        json = JsonParts()
        name = f"response.{status}"
        json.add(b"event: %s\ndata: " % name.encode())
        json.open_object({"type": name, "sequence_number": self._number}, "response")
        await self._write(json, status)
        json.add(b"}\n\n")
        for each in json.flush():
            yield each

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> Sequence[bytes]:
        """The answer as one JSON document, in pieces. The request's reservation of memory grows by their size."""
        reason = None
        async for part in parts:
            self._cost.add(part)
            held.grow(part.num_bytes)
            for _ in self._grow(part):
                pass
            reason = part.delta.finish_reason or reason
        if not self._items:
            self._items.append(_Item(Block(None)))
        json = JsonParts()
        await self._write(json, _status(reason))
        return json.flush()

    def failed_event(self, error: Exception) -> bytes:
        """The last event, if the model fails after the answer has begun."""
        return self._event("response.failed", response=self._document("failed", told(error)))

    def _grow(self, part: Part) -> list[bytes]:
        """Append a new part to the answer. Returns the events that tell the client of its text and calls."""
        events: list[bytes] = []
        self._logprobs += chat_logprobs(part.delta.logprobs)
        for piece in part.pieces:
            match piece:
                case Reasoning(text):
                    if not self._items or not self._items[-1].block.is_reasoning:
                        events += [*self._end_item(), *self._begin_text(Block(None, is_reasoning=True))]
                    self._items[-1].block.pieces.append(text)
                    events.append(self._event("response.reasoning_text.delta", **self._place, delta=text))
                case Text(text):
                    if not self._items or not self._items[-1].block.is_text:
                        events += [*self._end_item(), *self._begin_text(Block(None))]
                    item = self._items[-1]
                    item.block.pieces.append(text)
                    if self._logprobs:
                        item.logprobs.append(encoded_elements(self._logprobs))
                    added = {"delta": text, "logprobs": self._logprobs}
                    events.append(self._event("response.output_text.delta", **self._place, **added))
                    self._logprobs = []
                case CallBegin(_, name):
                    events += [*self._end_item(), self._begin(_Item(Block(name)))]
                case CallArguments(_, text):
                    self._items[-1].block.pieces.append(text)
                    events.append(self._event("response.function_call_arguments.delta", **self._where, delta=text))
        return events

    def _begin_text(self, block: Block) -> list[bytes]:
        """Begin an item with a message or reasoning. Returns the events that tell the client of it."""
        begun = self._begin(_Item(block))
        return [begun, self._event("response.content_part.added", **self._place, part=_part(block))]

    def _begin(self, item: "_Item") -> bytes:
        self._items.append(item)
        return self._event(
            "response.output_item.added", output_index=self._where["output_index"], item=item.document(is_begun=True)
        )

    def _end_item(self) -> list[bytes]:
        """The events that end the last item, if there is one."""
        if not self._items:
            return []
        item, text = self._items[-1], self._items[-1].block.text
        if item.block.name is None:
            # `logprobs` is empty: the delta events have sent them with the text, and the last event repeats them.
            name = "reasoning_text" if item.block.is_reasoning else "output_text"
            more: dict[str, Any] = {} if item.block.is_reasoning else {"logprobs": []}
            events = [
                self._event(f"response.{name}.done", **self._place, text=text, **more),
                self._event("response.content_part.done", **self._place, part=_part(item.block)),
            ]
        else:
            done = {"name": item.block.name, "arguments": text}
            events = [self._event("response.function_call_arguments.done", **self._where, **done)]
        index = self._where["output_index"]
        return [*events, self._event("response.output_item.done", output_index=index, item=item.document())]

    @property
    def _where(self) -> dict[str, Any]:
        """The fields of an event that locate the last item."""
        return {"item_id": self._items[-1].id, "output_index": len(self._items) - 1}

    @property
    def _place(self) -> dict[str, Any]:
        """The fields of an event that locate the text of the last item."""
        return {**self._where, "content_index": 0}

    def _event(self, name: str, /, **content: Any) -> bytes:
        document = {"type": name, "sequence_number": self._number, **content}
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(document))

    async def _write(self, json: JsonParts, status: str) -> None:
        """Write the complete response as JSON, with its status."""
        document = self._document(status)
        del document["output"]
        document["usage"] = self._usage()
        if self._request.text.has_report:
            document["triune"] = await self._cost.report(self._placement)
        json.open_object(document, "output")
        json.add(b"[")
        for number, item in enumerate(self._items):
            json.add(b"," if number else b"")
            item.write(json)
        json.add(b"]}")

    def _document(self, status: str, error: TriuneError | None = None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None if error is None else {"code": "server_error", "message": message_of(error)},
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self._request.text.model,
            "output": [],
            **self._request.shown,
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": None,
        }

    def _usage(self) -> dict[str, Any]:
        cost = self._cost
        return {
            "input_tokens": cost.num_prompt_tokens,
            "input_tokens_details": {"cached_tokens": cost.num_cached_tokens, "cache_write_tokens": 0},
            "output_tokens": cost.num_tokens,
            "output_tokens_details": {"reasoning_tokens": cost.num_reasoning_tokens},
            "total_tokens": cost.num_prompt_tokens + cost.num_tokens,
        }


class _Item:
    """An item of the answer.

    Attributes:
        block: its text, reasoning or call.
        logprobs: the log-probabilities of its tokens. Each is encoded when it comes: encoding thousands at the end
            would block the event loop.
        id: the item's id.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.logprobs: list[bytes] = []
        prefix = "rs" if block.is_reasoning else "msg" if block.is_text else "fc"
        self.id = f"{prefix}_{secrets.token_hex(24)}"

    def document(self, *, is_begun: bool = False) -> dict[str, Any]:
        """The item as a JSON object without probabilities: complete, or as it is at its beginning."""
        item: dict[str, Any] = {"id": self.id, "status": "in_progress" if is_begun else "completed"}
        if self.block.name is None:
            content = [] if is_begun else [_part(self.block)]
            if self.block.is_reasoning:
                return {**item, "type": "reasoning", "summary": [], "content": content}
            return {**item, "type": "message", "role": "assistant", "content": content}
        call = {"call_id": self.block.id, "name": self.block.name, "arguments": self.block.text}
        return {**item, "type": "function_call", **call}

    def write(self, json: JsonParts) -> None:
        """Write the item with its probabilities."""
        item = self.document()
        if not self.block.is_text:
            json.add(orjson.dumps(item))
            return
        (part,) = item.pop("content")
        del part["logprobs"]
        json.open_object(item, "content")
        json.add(b"[")
        json.open_object(part, "logprobs")
        json.add_array(self.logprobs)
        json.add(b"}]}")


def _part(block: Block) -> dict[str, Any]:
    """The JSON object for the part of an item that contains the text of a block."""
    if block.is_reasoning:
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


def _status(reason: FinishReason | None) -> str:
    return "incomplete" if reason is FinishReason.LENGTH else "completed"
