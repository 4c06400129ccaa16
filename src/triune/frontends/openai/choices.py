"""Write what the answers of the endpoints `chat/completions` and `completions` share: choices and usage."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import orjson

from triune.engine.generation import Placement
from triune.frontends.bodies.budget import Reservation
from triune.frontends.openai.requests import TextRequest
from triune.frontends.text.answers import Cost, Part
from triune.frontends.text.json_parts import JsonParts

_DONE = b"data: [DONE]\n\n"


def new_id(prefix: str) -> str:
    """An id of an answer, which nobody can guess."""
    return f"{prefix}-{secrets.token_hex(12)}"


def identified(request: TextRequest, prefix: str) -> TextRequest:
    """Add an id to a request if it is a stream: by the id, its answer can be moved to another server (`sequences`)."""
    if not request.is_stream:
        return request
    return replace(request, generation=replace(request.generation, id=new_id(prefix)))


def event(document: dict[str, Any]) -> bytes:
    """Encode a server-sent event without a name."""
    return b"data: %s\n\n" % orjson.dumps(document)


class Choice(Protocol):
    """One of a request's answers, which grows as the model generates it."""

    def add(self, part: Part) -> None:
        """Add a new part of the answer."""
        ...

    def write(self, index: int, json: JsonParts) -> None:
        """Write the answer to `json` as an element of `choices` with this index."""
        ...


T = TypeVar("T", bound=Choice)


class Choices:
    """Writes the JSON documents with a request's answers: one for all answers, or one for each event.

    Attributes:
        cost: the tokens and times of the answers. `whole` adds each part of an answer to it; code that writes events
            adds the parts itself.
    """

    def __init__(self, request: TextRequest, placement: Placement, prefix: str) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        prefix: the beginning of the answer's id.
        """
        self.cost = Cost(request.generation.num_answers)
        self._request = request
        self._placement = placement
        name = request.generation.id or new_id(prefix)
        self._head = {"id": name, "created": int(time.time()), "model": request.model}

    def chunk(self, kind: str, choice: dict[str, Any]) -> bytes:
        """An event with a part of one choice.

        Args:
            kind: the document's `object`.
            choice: the new part of the choice, in the form of the API.
        """
        document: dict[str, Any] = {**self._head, "object": kind, "choices": [choice]}
        if self._request.has_usage:
            document["usage"] = None
        return event(document)

    async def end(self, kind: str) -> bytes:
        """The last events: the usage if the request asks for it, and the end of the stream."""
        if self._request.has_usage or self._request.has_report:
            return event({**await self._document(kind), "choices": []}) + _DONE
        return _DONE

    async def whole(
        self,
        kind: str,
        parts: AsyncGenerator[Part],
        held: Reservation,
        new_choice: Callable[[int], T],
        chosen: Callable[[Sequence[T]], Sequence[T]] = lambda choices: choices,
    ) -> Sequence[bytes]:
        """All answers as one document, in pieces.

        Args:
            kind: the document's `object`.
            parts: the new parts of the answers.
            held: the request's reservation of memory, which grows by the size of the parts.
            new_choice: makes an empty answer for an index.
            chosen: which of all answers, in the order of their indices, to return.
        """
        choices: dict[int, T] = {}
        async for part in parts:
            held.grow(part.num_bytes)
            self.cost.add(part)
            if part.index not in choices:
                choices[part.index] = new_choice(part.index)
            choices[part.index].add(part)
        json = JsonParts()
        json.open_object(await self._document(kind), "choices")
        json.add(b"[")
        for index, choice in enumerate(chosen([choices[index] for index in sorted(choices)])):
            json.add(b"," if index else b"")
            choice.write(index, json)
            await asyncio.sleep(0)
        json.add(b"]}")
        return json.flush()

    async def _document(self, kind: str) -> dict[str, Any]:
        document: dict[str, Any] = {**self._head, "object": kind, "usage": _usage(self.cost)}
        if self._request.has_report:
            document["triune"] = await self.cost.report(self._placement)
        return document


def _usage(cost: Cost) -> dict[str, Any]:
    return {
        "prompt_tokens": cost.num_prompt_tokens,
        "completion_tokens": cost.num_tokens,
        "total_tokens": cost.num_prompt_tokens + cost.num_tokens,
        "prompt_tokens_details": {"cached_tokens": cost.num_cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": cost.num_reasoning_tokens},
    }
