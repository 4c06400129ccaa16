"""Write the answers of OpenAI's endpoint `completions`, as a whole or as events."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import numpy as np

from triune.engine.generation import Placement
from triune.frontends.bodies.budget import Reservation
from triune.frontends.openai.choices import Choices
from triune.frontends.openai.logprobs import completion_logprobs
from triune.frontends.openai.requests import Best, TextRequest
from triune.frontends.text.answers import Part
from triune.frontends.text.json_parts import JsonParts, encoded_elements

COMPLETION_PREFIX: Final = "cmpl"
"""The prefix of the ids of completions."""

_KIND = "text_completion"


class CompletionAnswer:
    """Writes the answers to one request to `completions`."""

    def __init__(self, request: TextRequest, placement: Placement, best: Best | None = None) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        best: which of the answers to return; None for all.
        """
        self._best = best
        self._num_answers = request.generation.num_answers
        self._choices = Choices(request, placement, COMPLETION_PREFIX)

    async def events(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
        """Yield the answer as server-sent events."""
        offsets: dict[int, int] = {}
        async for part in parts:
            self._choices.cost.add(part)
            text, logprobs, reason = part.delta.text, None, part.delta.finish_reason
            if part.index not in offsets:
                offsets[part.index] = 0
            if part.delta.logprobs:
                logprobs = completion_logprobs(part.delta.logprobs, offsets[part.index])
                offsets[part.index] = _end(logprobs)
            if text or logprobs or reason is not None:
                ended = None if reason is None else reason.value
                choice = {"index": part.index, "text": text, "logprobs": logprobs, "finish_reason": ended}
                yield self._choices.chunk(_KIND, choice)
        yield await self._choices.end(_KIND)

    async def whole(self, parts: AsyncGenerator[Part], held: Reservation) -> Sequence[bytes]:
        """The answer as one JSON document, in pieces. The request's reservation of memory grows by their size."""
        has_logprobs = self._best is None or self._best.has_logprobs
        return await self._choices.whole(_KIND, parts, held, lambda _: _Choice(has_logprobs=has_logprobs), self._chosen)

    def _chosen(self, choices: "Sequence[_Choice]") -> "Sequence[_Choice]":
        """The answers to return: for each prompt its best ones, the best first, if the request asks for the best only;
        else all.
        """
        if self._best is None:
            return choices
        found: list[_Choice] = []
        for begin in range(0, len(choices), self._num_answers):
            answers = sorted(choices[begin : begin + self._num_answers], key=lambda each: each.mean_logprob)
            found += reversed(answers[-self._best.num_answers :])
        return found


class _Choice:
    """One answer, which grows as the model generates it."""

    def __init__(self, *, has_logprobs: bool) -> None:
        self._texts: list[str] = []
        self._num_echoed = 0
        self._has_logprobs = has_logprobs
        self._logprobs: dict[str, list[Any]] = {}
        self._top: list[bytes] = []
        self._reason: str | None = None

    def add(self, part: Part) -> None:
        self._texts.append(part.delta.text)
        if part.delta.logprobs:
            added = completion_logprobs(part.delta.logprobs, _end(self._logprobs) if self._logprobs else 0)
            # Encode the logprobs of each part as it comes: thousands of them at once would block the event loop at the
            # end.
            self._top.append(encoded_elements(added.pop("top_logprobs")))
            self._num_echoed += len(part.delta.logprobs) if part.is_echo else 0
            for name, values in added.items():
                self._logprobs.setdefault(name, []).extend(values)
        if part.delta.finish_reason is not None:
            self._reason = part.delta.finish_reason.value

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of the answer's tokens, without those of the prompt."""
        own = self._logprobs["token_logprobs"][self._num_echoed :] if self._logprobs else []
        return float(np.mean(own)) if own else 0.0

    def write(self, index: int, json: JsonParts) -> None:
        document = {"index": index, "text": "".join(self._texts), "finish_reason": self._reason}
        json.open_object(document, "logprobs")
        if self._logprobs and self._has_logprobs:
            json.open_object(self._logprobs, "top_logprobs")
            json.add_array(self._top)
            json.add(b"}}")
        else:
            json.add(b"null}")


def _end(logprobs: dict[str, list[Any]]) -> int:
    """The index in the text of the first character after the last token."""
    return logprobs["text_offset"][-1] + len(logprobs["tokens"][-1])
