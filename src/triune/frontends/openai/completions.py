"""Writes the answers of `completions`, whole or as events."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from triune.engine.generation import Placement
from triune.frontends.kserve.budget import Reservation
from triune.frontends.openai.chats import DONE, event, usage_of
from triune.frontends.openai.logprobs import completion_logprobs
from triune.frontends.openai.requests import TextRequest
from triune.frontends.text.answers import Cost, Part


class CompletionAnswer:
    """The answers to one request."""

    def __init__(self, request: TextRequest, placement: Placement, echoes: Sequence[str] = ()) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        echoes: the text of each prompt, with which its answers begin; empty if they do not.
        """
        self._request = request
        self._placement = placement
        self._echoes = echoes
        self._cost = Cost(request.generation.num_answers)
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

    async def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """The answer as events."""
        offsets: dict[int, int] = {}
        async for part in parts:
            self._cost.add(part)
            text, logprobs, reason = part.delta.text, None, part.delta.finish_reason
            if part.index not in offsets:
                offsets[part.index] = 0
                text = self._echo(part.index) + text
            if part.delta.logprobs:
                logprobs = completion_logprobs(part.delta.logprobs, offsets[part.index])
                offsets[part.index] = _end(logprobs)
            if text or logprobs or reason is not None:
                choice = _choice(part.index, text, logprobs, None if reason is None else reason.value)
                document: dict[str, Any] = {**self._head, "choices": [choice]}
                if self._request.has_usage:
                    document["usage"] = None
                yield event(document)
        if self._request.has_usage or self._request.has_report:
            yield event(self._document([]))
        yield DONE

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> bytes:
        """The answer as one document. The reservation grows with it."""
        texts: dict[int, list[str]] = {}
        logprobs: dict[int, dict[str, list[Any]]] = {}
        reasons: dict[int, str] = {}
        async for part in parts:
            held.grow(part.num_bytes)
            self._cost.add(part)
            so_far = texts.setdefault(part.index, [self._echo(part.index)])
            if part.delta.logprobs:
                known = logprobs.setdefault(part.index, {})
                for name, values in completion_logprobs(part.delta.logprobs, _end(known) if known else 0).items():
                    known.setdefault(name, []).extend(_encoded(values) if name == "top_logprobs" else values)
            so_far.append(part.delta.text)
            if part.delta.finish_reason is not None:
                reasons[part.index] = part.delta.finish_reason.value
        choices: list[orjson.Fragment] = []
        for index in sorted(texts):
            choice = _choice(index, "".join(texts[index]), logprobs.get(index), reasons[index])
            choices.append(orjson.Fragment(orjson.dumps(choice)))
            await asyncio.sleep(0)
        return orjson.dumps(self._document(choices))

    def _echo(self, index: int) -> str:
        return self._echoes[index // self._request.generation.num_answers] if self._echoes else ""

    def _document(self, choices: list[Any]) -> dict[str, Any]:
        document: dict[str, Any] = {**self._head, "choices": choices, "usage": usage_of(self._cost)}
        if self._request.has_report:
            document["triune"] = self._cost.report(self._placement)
        return document


def _encoded(values: list[Any]) -> list[orjson.Fragment]:
    """Values that are encoded as they come, since thousands of them would hold the loop at the end."""
    return [orjson.Fragment(orjson.dumps(each)) for each in values]


def _end(logprobs: dict[str, list[Any]]) -> int:
    """Where in the text the tokens end."""
    return logprobs["text_offset"][-1] + len(logprobs["tokens"][-1])


def _choice(index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
