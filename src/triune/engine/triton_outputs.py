"""The outputs of Triton's requests to a text model: the answers' texts, and what the request asks for besides, in the
form of Triton's vLLM backend.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from triune.config.transformer import TEXT_OUTPUT
from triune.core.datatypes import Array
from triune.core.errors import PayloadTooLargeError
from triune.core.threads import in_thread_or_here, pause
from triune.engine.generation import Delta, Generation, PromptLogprobs, TokenLogprob
from triune.engine.sequence import FinishReason

OF_TOKENS: Final = frozenset({"num_input_tokens", "prompt_logprobs"})
"""The outputs for which the prompt's tokens must be known before the model computes them."""

_ENTRIES_AT_ONCE: Final = 256
"""How many probabilities are written as JSON on the event loop, or in a thread without a pause."""

_MOST_ENTRIES: Final = 1 << 18
"""The most probabilities in one response. As JSON, each takes about 80 bytes."""


@dataclass(slots=True)
class _Answer:
    """One of a request's answers.

    Attributes:
        texts: its text since the last response.
        num_tokens: the tokens since the last response.
        logprobs: their probabilities.
        cumulative_logprob: the sum of the log probabilities of all its tokens.
        finish_reason: why it ended; None while it goes on.
    """

    texts: list[str]
    num_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    cumulative_logprob: float = 0.0
    finish_reason: FinishReason | None = None


class TritonOutputs:
    """Collects the deltas of a request's answers until the next response, and makes the response's tensors of them.

    Attributes:
        request: the request to the model, with the probabilities that the outputs need.
    """

    def __init__(self, asked: Set[str], request: Generation, *, before: str, is_streaming: bool) -> None:
        """Args:
        asked: the names of the outputs that the request asks for, among `TEXT_OUTPUT` and `ADDITIONAL_OUTPUTS`.
        request: the request as its parameters say it. If `asked` has one of `OF_TOKENS`, its prompt is token ids.
        before: the text before each answer in the first response: the prompt, or "".
        is_streaming: whether a response holds a part of an answer, and not whole answers.

        Raises:
            PayloadTooLargeError: a response would hold too many probabilities.
        """
        num_logprobs, num_prompt_logprobs = request.sampling.num_logprobs, request.num_prompt_logprobs or 0
        self._asked = asked
        self._has_logprobs = "logprobs" in asked and num_logprobs is not None
        self._has_prompt = "prompt_logprobs" in asked
        self._num_input_tokens = len(request.prompt)
        self._prompt: PromptLogprobs | None = None
        self._answers = [_Answer([before]) for _ in range(request.num_answers)]
        if self._has_logprobs and not is_streaming:
            num_tokens = request.num_answers * (request.max_tokens or 0)
            _require_few("logprobs", num_logprobs or 0, num_tokens, "lower 'max_tokens' or 'logprobs', or stream")
        if self._has_prompt:
            _require_few("prompt_logprobs", num_prompt_logprobs, len(request.prompt), "lower 'prompt_logprobs'")
        needs_own = "cumulative_logprob" in asked and num_logprobs is None
        self.request = replace(
            request,
            sampling=replace(request.sampling, num_logprobs=0) if needs_own else request.sampling,
            num_prompt_logprobs=num_prompt_logprobs if self._has_prompt else None,
        )

    @property
    def is_done(self) -> bool:
        """Whether all answers have ended."""
        return all(answer.finish_reason is not None for answer in self._answers)

    def add(self, delta: Delta) -> None:
        """Collect a new part of an answer."""
        answer = self._answers[delta.index]
        answer.texts.append(delta.text)
        answer.num_tokens += len(delta.tokens)
        answer.finish_reason = delta.finish_reason
        if "cumulative_logprob" in self._asked:
            answer.cumulative_logprob += sum(each.logprob for each in delta.logprobs)
        if self._has_logprobs:
            answer.logprobs += delta.logprobs
        if self._has_prompt:
            self._prompt = delta.prompt or self._prompt

    async def take(self) -> dict[str, Array]:
        """The tensors of a response with what was collected since the last one."""
        answers = self._answers
        outputs: dict[str, Array] = {TEXT_OUTPUT: _texts("".join(each.texts) for each in answers)}
        if "finish_reason" in self._asked:
            # vLLM's backend writes Python's None for an answer that goes on.
            outputs["finish_reason"] = _texts(
                "None" if each.finish_reason is None else each.finish_reason.value for each in answers
            )
        if "cumulative_logprob" in self._asked:
            outputs["cumulative_logprob"] = np.array([each.cumulative_logprob for each in answers], np.float32)
        if "logprobs" in self._asked:
            texts = [await _written(each.logprobs) if self._has_logprobs else "null" for each in answers]
            outputs["logprobs"] = _texts(texts)
        if "num_input_tokens" in self._asked:
            outputs["num_input_tokens"] = np.array([self._num_input_tokens], np.uint32)
        if "num_output_tokens" in self._asked:
            outputs["num_output_tokens"] = np.array([each.num_tokens for each in answers], np.uint32)
        if self._has_prompt:
            assert self._prompt is not None
            outputs["prompt_logprobs"] = _texts([await _written(self._prompt)])
            self._has_prompt, self._prompt = False, None
        for each in answers:
            each.texts, each.num_tokens, each.logprobs = [], 0, []
        return {name: array for name, array in outputs.items() if name in self._asked}


def _texts(texts: Iterable[str]) -> Array:
    return np.array([text.encode() for text in texts], np.object_)


def _require_few(name: str, num_top: int, num_tokens: int, remedy: str) -> None:
    num = num_tokens * (1 + num_top)
    if num > _MOST_ENTRIES:
        raise PayloadTooLargeError(
            f"'{name}' may hold {num} probabilities: {1 + num_top} for each of {num_tokens} tokens; a response holds "
            f"{_MOST_ENTRIES} at most: {remedy}"
        )


async def _written(logprobs: PromptLogprobs | Sequence[TokenLogprob]) -> str:
    """Write probabilities as JSON, many of them in a thread."""
    if isinstance(logprobs, PromptLogprobs):
        num_top, some = logprobs.num_top, logprobs.slice
    else:
        num_top, some = max((len(each.top) for each in logprobs), default=0), _slicer(logprobs)
    step = max(1, _ENTRIES_AT_ONCE // (1 + num_top))

    def write() -> str:
        parts: list[str] = []
        for begin in range(0, len(logprobs), step):
            if begin:
                pause()
            parts.append(_json(some(begin, begin + step))[1:-1])
        return f"[{', '.join(parts)}]"

    return write() if len(logprobs) <= step else await in_thread_or_here(write)


def _slicer(logprobs: Sequence[TokenLogprob]) -> Callable[[int, int], Sequence[TokenLogprob]]:
    return lambda begin, end: logprobs[begin:end]


def _json(logprobs: Iterable[TokenLogprob]) -> str:
    """A JSON list with an object for each token: the probabilities at its position by token id. It is null where a
    token of a prompt has none.
    """
    return json.dumps([None if math.isnan(each.logprob) else _position(each) for each in logprobs])


def _position(logprob: TokenLogprob) -> dict[int, dict[str, Any]]:
    """The token itself and the most probable ones."""
    found = {each.token: _entry(each, rank) for rank, each in enumerate(logprob.top, 1)}
    return {logprob.token: _entry(logprob, logprob.rank)} | found


def _entry(logprob: TokenLogprob, rank: int) -> dict[str, Any]:
    # JSON has no infinity.
    value = logprob.logprob if math.isfinite(logprob.logprob) else None
    return {"logprob": value, "rank": rank, "decoded_token": logprob.text.decode(errors="replace")}
