"""The engine: a model that generates text for many clients at once. It implements `TextModel`."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from triune.core.clock import Clock
from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.threads import in_thread, in_thread_or_here
from triune.engine.core import EngineCore
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Delta, Generation, Placement
from triune.engine.group import Group, start_group
from triune.engine.structured.compiler import ConstraintCompiler, Grammar
from triune.engine.text.answer import Answer
from triune.engine.text.detokenizer import drops_first_space
from triune.engine.thread import EngineThread, Job, Output, StepTimes
from triune.engine.weights.tokenizer.template import ChatTemplate
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_T = TypeVar("_T")

MAX_ANSWERS: Final = 128
"""The most answers to one prompt, as in OpenAI's API."""

_INLINE_CHARACTERS: Final = 256
"""Texts up to this length are tokenized on the event loop's thread, which takes less than 0.1 ms."""

_MAX_THREADS: Final = 4
"""The most threads that tokenize and render templates at the same time."""


@dataclass(frozen=True, slots=True)
class TextSide:
    """What turns text into tokens, and tokens into text.

    Attributes:
        tokenizer: the tokenizer.
        token_bytes: the bytes of each id of the model's embedding.
        chat_template: None if the model has none.
        end_tokens: the ids that end an answer.
        drops_space: whether the tokenizer's decoder leaves out a space that begins a text.
        constraints: compiles the constraints of answers.
    """

    tokenizer: Tokenizer
    token_bytes: Sequence[bytes]
    chat_template: ChatTemplate | None
    end_tokens: frozenset[int]
    drops_space: bool
    constraints: ConstraintCompiler

    @classmethod
    def of(cls, tokenizer: Tokenizer, chat_template: ChatTemplate | None, vocab_size: int) -> "TextSide":
        """Prepare it, which takes about 0.3 s. `vocab_size` is the number of rows of the embedding."""
        known = tokenizer.token_bytes
        return cls(
            tokenizer,
            known + (b"",) * (vocab_size - len(known)),
            chat_template,
            frozenset(tokenizer.tokens.eos),
            drops_first_space(tokenizer),
            ConstraintCompiler(tokenizer, vocab_size),
        )


class Engine:
    """A `TextModel`. Made and used on the event loop's thread; steps run on a thread of its own.

    Attributes:
        placement: where the model runs.
        statistics: Triton's counters: a request to `generate` counts once, a step as a batch of its sequences.
        counters: the counts of tokens.
    """

    def __init__(
        self,
        core: EngineCore,
        text: TextSide,
        placement: Placement,
        clock: Clock,
        *,
        name: str,
        statistics: ModelStatistics | None = None,
        max_answers: int = 512,
        close_decoder: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        core: the engine takes it over.
        text: tokenizer and chat template.
        placement: where the model runs.
        clock: the clock of all measurements.
        name: the model's name, for errors and for the name of the thread.
        statistics: the counters; None makes new ones.
        max_answers: the most answers that may wait, run or be unread at the same time.
        close_decoder: frees the decoder; called in a thread by `close`.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the decoder then.
        """
        self.placement = placement
        self.statistics = statistics or ModelStatistics()
        self.counters = EngineCounters()
        self._core = core
        self._text = text
        self._clock = clock
        self._name = name
        self._max_answers = max_answers
        self._close_decoder = close_decoder
        self._num_answers = 0
        self._num_requests = 0
        self._refusal = ""
        self._is_free: asyncio.Event | None = None
        self._slots = asyncio.Semaphore(_MAX_THREADS)
        self._longest_token = max(map(len, text.token_bytes), default=1)
        self._groups: dict[Job, Group] = {}
        self._thread = EngineThread(core, self._receive, clock, name)

    @property
    def context_tokens(self) -> int:
        """See `TextModel`."""
        return self._core.context_tokens

    @property
    def can_chat(self) -> bool:
        """See `TextModel`."""
        return self._text.chat_template is not None

    @property
    def state(self) -> EngineState:
        """What the engine holds at this moment."""
        core, pool = self._core, self._core.pool
        return EngineState(core.num_running, core.num_waiting, pool.num_free, pool.num_used, pool.num_cached)

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """See `TextModel`."""
        template = self._text.chat_template
        if template is None:
            raise UnsupportedError(
                f"model '{self._name}' has no chat template, so that it cannot read a conversation; send a prompt"
            )
        render = partial(
            template.render, messages, tools=tools, add_generation_prompt=add_generation_prompt, **(variables or {})
        )
        return await self._in_thread(render)

    async def tokenize(self, text: str, *, is_templated: bool = False) -> list[int]:
        """See `TextModel`."""
        # A token is at most so long, so a text that is longer than the context has more tokens, too.
        longest = self.context_tokens * self._longest_token
        if len(text) > longest:
            raise PayloadTooLargeError(
                f"the text has {len(text)} characters; the context of {self.context_tokens} tokens holds at most "
                f"{longest}: shorten it"
            )
        encode = partial(self._text.tokenizer.encode, text, add_special_tokens=not is_templated)
        return encode() if len(text) <= _INLINE_CHARACTERS else await self._in_thread(encode)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See `TextModel`."""
        decode = partial(self._text.tokenizer.decode, tokens, skip_special_tokens=False)
        return decode() if len(tokens) <= _INLINE_CHARACTERS else await self._in_thread(decode)

    async def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        """See `TextModel`."""
        arrived_ns = self._clock.now_ns()
        try:
            self._admit(request)
        except TriuneError:
            self.statistics.record_failure(FailureReason.REJECTED, 0)
            raise
        group: Group | None = None
        failure = FailureReason.CANCELED
        try:
            prompt = request.prompt
            if isinstance(prompt, str):
                prompt = await self.tokenize(prompt, is_templated=request.is_templated)
            grammar = None
            if request.constraint is not None:
                grammar = await in_thread(self._text.constraints.compile, request.constraint)
            group = self._start(request, prompt, arrived_ns, grammar)
            while not group.is_done:
                await group.until_news()
                for delta in group.take():
                    yield delta
        except TriuneError as error:
            failure = _reason_of(error)
            raise
        finally:
            self._end(request, group)
            if group is not None and group.is_done:
                self._record_success(group, arrived_ns)
            else:
                self.statistics.num_pending -= 1
                self.statistics.record_failure(failure, self._clock.now_ns() - arrived_ns)

    def refuse(self) -> None:
        """Refuse waiting and new requests; those that have begun go on."""
        if not self._refusal:
            self._refusal = f"model '{self._name}' is being unloaded and takes no new requests; try again later"
            self._thread.refuse(self._refusal)

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        while self._num_requests:
            self._is_free = asyncio.Event()
            await self._is_free.wait()

    async def close(self) -> None:
        """Refuse waiting and new requests, let those that have begun finish, and free everything."""
        self.refuse()
        await self.drain()
        self._thread.stop()
        await in_thread_or_here(self._free)

    def _free(self) -> None:
        self._thread.join()
        self._text.constraints.close()
        self._close_decoder()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        async with self._slots:
            return await in_thread(work)

    def _admit(self, request: Generation) -> None:
        """Count a request as under way. Raises a TriuneError if it may not begin."""
        count = request.num_answers
        if not 1 <= count <= MAX_ANSWERS:
            raise InvalidArgumentError(f"{count} answers are asked for; it must be between 1 and {MAX_ANSWERS}")
        if self._refusal:
            raise UnavailableError(self._refusal)
        if self._num_answers + count > self._max_answers:
            raise UnavailableError(
                f"model '{self._name}' has {self._num_answers} answers under way and takes {self._max_answers} at "
                "most; try again later"
            )
        self._num_answers += count
        self._num_requests += 1
        self.statistics.num_pending += 1
        self.statistics.num_waiting += 1

    def _start(self, request: Generation, prompt: Sequence[int], arrived_ns: int, grammar: Grammar | None) -> Group:
        """Hand a request to the thread."""
        if self._refusal:
            raise UnavailableError(self._refusal)
        text = self._text
        group = start_group(
            request,
            prompt,
            text.token_bytes,
            text.end_tokens,
            self.context_tokens,
            arrived_ns,
            drops_space=text.drops_space,
            grammar=grammar,
        )
        for answer in group.answers:
            self._groups[answer.job] = group
        self._thread.add(group.answers[0].job)
        return group

    def _end(self, request: Generation, group: Group | None) -> None:
        """Forget a request, and cancel what it has not finished."""
        if group is None or not group.has_begun:
            self.statistics.num_waiting -= 1
        for answer in group.answers if group is not None else ():
            del self._groups[answer.job]
            if answer.finish_reason is None:
                self._thread.cancel(answer.job)
        self._num_answers -= request.num_answers
        self._num_requests -= 1
        if not self._num_requests and self._is_free is not None:
            self._is_free.set()

    def _receive(self, outputs: list[Output], times: StepTimes) -> None:
        """Pass the outputs of a step on to their requests. The thread goes on meanwhile."""
        for output in outputs:
            # A request that was cancelled is unknown here.
            group = self._groups.get(output.job)
            if group is not None:
                self._pass_on(group, output, times.ended_ns)
        if times.num_sequences:
            elapsed_ns = times.ended_ns - times.started_ns
            self.statistics.record_batch(times.num_sequences, 1, 0, elapsed_ns, 0)
            busy, unit = self.statistics.unit_busy_ns, self.placement.unit
            busy[unit] = busy.get(unit, 0) + elapsed_ns

    def _pass_on(self, group: Group, output: Output, now_ns: int) -> None:
        answer = group.answers[output.job.index]
        # The thread may have computed one more token before it heard of a stop text.
        if answer.finish_reason is not None:
            return
        if not group.has_begun:
            group.has_begun = True
            self.statistics.num_waiting -= 1
        if output.sample is None:
            group.fail(output.error or InternalError("the engine ended an answer without saying why"))
            return
        self._count(answer, now_ns)
        answer.add(output.sample, output.finish_reason, now_ns)
        if answer.finish_reason is not None and output.finish_reason is None:
            self._thread.cancel(answer.job)
        group.tell()

    def _count(self, answer: Answer, now_ns: int) -> None:
        counters, seconds = self.counters, (now_ns - answer.last_ns) / 1e9
        counters.num_tokens += 1
        if answer.num_tokens:
            counters.between_tokens_seconds.add(seconds)
            return
        counters.first_token_seconds.add(seconds)
        counters.num_prompt_tokens += len(answer.job.prompt)
        counters.num_cached_tokens += answer.job.sequence.num_cached_tokens if answer.job.sequence is not None else 0

    def _record_success(self, group: Group, arrived_ns: int) -> None:
        statistics, usages = self.statistics, [answer.usage for answer in group.answers]
        total_ns = self._clock.now_ns() - arrived_ns
        queue_ns = min(each.queue_ns for each in usages)
        statistics.record_success(1, total_ns, queue_ns, 0, total_ns - queue_ns, 0)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        unit = self.placement.unit
        statistics.unit_inferences[unit] = statistics.unit_inferences.get(unit, 0) + 1
        if statistics.distributions is not None:
            first_ns = min(each.first_token_ns for each in usages)
            statistics.distributions.record(
                (total_ns, queue_ns, 0, total_ns - queue_ns, 0), (), (), first_response_ns=first_ns
            )


def _reason_of(error: TriuneError) -> FailureReason:
    """How a failure is counted."""
    if isinstance(error, UnavailableError):
        return FailureReason.REJECTED
    return FailureReason.OTHER if isinstance(error, InvalidArgumentError) else FailureReason.BACKEND
