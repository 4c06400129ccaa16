"""The reference `TextModel`: it looks answers up in a table, and its tokens are the bytes of UTF-8."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np

from triune.core.datatypes import Array
from triune.core.energy import Bill
from triune.core.errors import InvalidArgumentError, NotFoundError, TriuneError, UnsupportedError
from triune.core.units import Unit
from triune.engine.generation import Delta, Generation, Placement, PromptLogprobs, TokenLogprob, Usage
from triune.engine.sampling.prompt_scores import PromptScores
from triune.engine.sequence import FinishReason
from triune.engine.speech.segments import Segment, SpeechRequest
from triune.engine.speech.words.split import Word
from triune.repository.model import IndexEntry, ModelState

PLACEMENT = Placement(Unit.CPU, "table", "fp32", "it is the only unit of the table")


class TableTextModel:
    """A simple `TextModel` for tests. The answer to a prompt is the entry of the first text in the table that occurs in
    the prompt.

    Attributes:
        answers: maps texts that a prompt may contain to the answer. An answer may contain an error, which is raised
            after the text before it.
        requests: the requests that it has received.
        rendered: the conversations, with their tools and variables.
        gate: an event. While it is cleared, answers pause after their first token.
        num_open: the number of running generations.
        num_written: the number of characters of all answers.
        all_closed: an event that is set while no generation runs.
    """

    def __init__(
        self,
        answers: Mapping[str, str | tuple[str, Exception]],
        *,
        context_tokens: int = 4096,
        can_chat: bool = True,
        adapters: Sequence[str] = (),
        tokens_per_delta: int = 1,
        prompt_end: str = "<assistant>",
    ) -> None:
        self.context_tokens = context_tokens
        self.can_chat = can_chat
        self.adapters = adapters
        self.placement = PLACEMENT
        self.answers = dict(answers)
        self.requests: list[Generation] = []
        self.rendered: list[tuple[Any, Any, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.num_open = 0
        self.num_written = 0
        self.all_closed = asyncio.Event()
        self._size = tokens_per_delta
        self._prompt_end = prompt_end

    def room_behind(self, num_prompt_tokens: int) -> int:
        return self.context_tokens - num_prompt_tokens

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        if not self.can_chat:
            raise UnsupportedError("the model has no chat template")
        self.rendered.append((messages, tools, variables))
        lines = [f"<{each['role']}>{each['content']}{json.dumps(each.get('tool_calls', ''))}" for each in messages]
        return "\n".join([*lines, self._prompt_end])

    async def tokenize(self, text: str, *, is_templated: bool = False) -> list[int]:
        return list(text.encode())

    async def detokenize(self, tokens: Sequence[int]) -> str:
        if any(token > 255 for token in tokens):
            raise InvalidArgumentError(f"the token {max(tokens)} is not in the vocabulary of 256")
        return bytes(tokens).decode()

    async def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        if not request.prompt:
            raise InvalidArgumentError("the prompt is empty")
        self.requests.append(request)
        self.num_open += 1
        self.all_closed.clear()
        try:
            prompt = bytes(request.prompt).decode()
            answer = next((answer for text, answer in self.answers.items() if text in prompt), "Yes.")
            text, error = answer if isinstance(answer, tuple) else (answer, None)
            for index in range(request.num_answers):
                async with contextlib.aclosing(self._one(request, index, text)) as deltas:
                    async for delta in deltas:
                        if delta.finish_reason is not None and error is not None:
                            raise error
                        yield delta
                        await asyncio.sleep(0)
                        await self.gate.wait()
        finally:
            self.num_open -= 1
            if not self.num_open:
                self.all_closed.set()

    async def _one(self, request: Generation, index: int, text: str) -> AsyncGenerator[Delta]:
        reason, stop = FinishReason.STOP, None
        found = [(text.find(each), each) for each in request.stop if each in text]
        if found:
            end, stop = min(found)
            text = text[:end]
        if request.max_tokens is not None and len(text) > request.max_tokens:
            text, reason, stop = text[: request.max_tokens], FinishReason.LENGTH, None
        usage = Usage(len(request.prompt), len(request.prompt) // 2, len(text), 1_000_000, 2_000_000, 3_000_000)
        prompt = None if index else self._prompt_logprobs(request)
        for start in range(0, len(text), self._size):
            added = text[start : start + self._size]
            self.num_written += len(added)
            tokens = tuple(ord(letter) for letter in added)
            yield Delta(index, added, tokens, self._logprobs(request, added, index), prompt=prompt)
            prompt = None
        yield Delta(index, "", (), (), reason, stop, usage)

    def _prompt_logprobs(self, request: Generation) -> PromptLogprobs | None:
        """The logprobs of a prompt's tokens: all 256 tokens are equally probable, except that `a` is twice as
        probable.
        """
        if request.num_prompt_logprobs is None:
            return None
        prompt = [*request.prompt]
        assert all(isinstance(token, int) for token in prompt)
        logits = np.zeros((len(prompt) - 1, 256), np.float32)
        logits[:, ord("a")] = np.log(2)
        scores = PromptScores(prompt, request.num_prompt_logprobs)  # type: ignore[arg-type]
        scores.read(range(len(logits)), logits)
        return PromptLogprobs(prompt, scores, [bytes([byte]) for byte in range(256)])  # type: ignore[arg-type]

    def _logprobs(self, request: Generation, letters: str, index: int) -> tuple[TokenLogprob, ...]:
        """The logprobs of an answer's tokens. Answers with a larger index are more probable."""
        if request.sampling.num_logprobs is None:
            return ()
        top = tuple(
            TokenLogprob(97 + place, bytes([97 + place]), -1.0 - place)
            for place in range(request.sampling.num_logprobs)
        )
        return tuple(TokenLogprob(ord(letter), letter.encode(), -0.5 + index / 16, top) for letter in letters)


class TableEmbeddingModel:
    """A simple `EmbeddingModel` for tests: the embedding of a text is its length, then 1, 2 and 3."""

    max_tokens = 512
    width = 4
    placements = (PLACEMENT,)

    async def embed(self, inputs: Sequence[str | Sequence[int]], bill: Bill | None = None) -> tuple[Array, int]:
        rows = [[len(each), 1, 2, 3] for each in inputs]
        return np.array(rows, np.float32), sum(len(each) for each in inputs)


class TableSpeechModel:
    """A simple `SpeechModel` for tests: every byte of a file stands for a second in which its letter is spoken.

    Attributes:
        requests: the requests that it has received.
        num_open: the number of running transcriptions.
        gate: an event. While it is cleared, transcriptions pause after their first segment.
    """

    languages = ("en",)
    placement = PLACEMENT

    def __init__(self) -> None:
        self.requests: list[SpeechRequest] = []
        self.num_open = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def seconds_of(self, content: bytearray) -> float:
        if not content:
            raise InvalidArgumentError("the audio holds no samples")
        return float(len(content))

    async def transcribe(self, content: bytearray, request: SpeechRequest) -> AsyncGenerator[Segment]:
        if request.translates:
            raise UnsupportedError("model 'table' knows English only, so that it cannot translate")
        self.requests.append(request)
        self.num_open += 1
        try:
            for at, byte in enumerate(bytes(content)):
                words = (Word(at + 0.125, at + 0.5, f" {chr(byte)}", 1, 0.75),) if request.has_words else ()
                yield Segment(at, at + 1, f" {chr(byte)}", (byte,), 100 * at, 0.0, -0.5, 1.1, 0.25, "en", words)
                await self.gate.wait()
        finally:
            self.num_open -= 1


class TableTextModels:
    """A simple `frontends.text.models.TextModels` for tests."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        """Args:
        models: text models, embedding models and errors by name.
        """
        self.models = dict(models)

    def text_model(self, name: str, version: int | None = None) -> Any:
        return self._find(name, TableTextModel, "generate text")

    def embedding_model(self, name: str, version: int | None = None) -> Any:
        return self._find(name, TableEmbeddingModel, "embed texts")

    def speech_model(self, name: str, version: int | None = None) -> Any:
        return self._find(name, TableSpeechModel, "read speech")

    async def awake(self, name: str, version: int | None = None) -> None:
        """Return at once, since all models are in memory."""

    def parked_text_model(self, name: str) -> Sequence[str] | None:
        return None

    def last_index(self, *, is_ready_only: bool = False) -> Sequence[IndexEntry]:
        return [IndexEntry(name, 1, ModelState.READY) for name in self.models]

    def _find(self, name: str, kind: type, what: str) -> Any:
        if name not in self.models:
            raise NotFoundError(f"unknown model '{name}'")
        model = self.models[name]
        if isinstance(model, TriuneError):
            raise model
        if not isinstance(model, kind):
            raise UnsupportedError(f"model '{name}' does not {what}")
        return model
