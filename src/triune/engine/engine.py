"""The engine: a model that generates text for many clients at once. It implements `TextModel`."""

import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from triune.config.limits import RunLimit
from triune.config.policy import QueueLimits
from triune.core.clock import Clock
from triune.core.errors import (
    InternalError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.fair_slots import FairSlots
from triune.core.statistics import ModelStatistics
from triune.core.threads import in_thread, in_thread_or_here
from triune.engine.admission import Admission, Ticket
from triune.engine.core import EngineCore
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Delta, Generation, Placement
from triune.engine.group import Group, resume_group, start_group
from triune.engine.moving.transfers import Movable, Transfers
from triune.engine.moving.wire import MovedAnswer
from triune.engine.sequence import FinishReason
from triune.engine.structured.compiler import Grammar
from triune.engine.text.side import TextSide
from triune.engine.thread import EngineThread, Job, Output, StepTimes

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_DEFAULT_LIMITS: Final = QueueLimits()

_INLINE_CHARACTERS: Final = 256
_LONG_CHARACTERS: Final = 100_000
"""Texts up to this length are tokenized on the event loop's thread, which takes less than 0.1 ms."""

_MAX_THREADS: Final = 4
"""The most threads that tokenize and render templates at the same time."""


class Engine:
    """A `TextModel`. Made and used on the event loop's thread; steps run on a thread of its own.

    Attributes:
        placement: where the model runs.
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
        max_running: int = 64,
        limits: QueueLimits = _DEFAULT_LIMITS,
        close_decoder: Callable[[], None] = lambda: None,
        run_limit_seconds: float = math.inf,
        movable: Movable | None = None,
    ) -> None:
        """Args:
        core: the engine takes it over.
        text: tokenizer and chat template.
        placement: where the model runs.
        clock: the clock of all measurements.
        name: the model's name, for errors and for the name of the thread.
        statistics: the counters; None makes new ones.
        max_running: the most answers that are computed at the same time, as the core's limits say.
        limits: how many more answers may wait or be unread, and how long they may wait.
        close_decoder: frees the decoder; called in a thread by `close`.
        run_limit_seconds: the time limit of a step. After it, all requests get an error, and new ones are refused until
            the step has ended.
        movable: what it takes to move answers to another server; None if none may be.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the decoder then.
        """
        self.placement = placement
        self.counters = EngineCounters()
        self._core = core
        self._text = text
        self._clock = clock
        self._name = name
        self._close_decoder = close_decoder
        self._admission = Admission(name, placement.unit, clock, statistics or ModelStatistics(), max_running, limits)
        self._slots = FairSlots(_MAX_THREADS)
        self._large_slots = FairSlots(max(1, _MAX_THREADS - 1))
        self._longest_token = max(map(len, text.token_bytes), default=1)
        self._groups: dict[Job, Group] = {}
        self._thread = EngineThread(core, self._receive, clock, name)
        self._transfers = Transfers(name, movable, core, self._thread)
        self._run_limit = RunLimit(clock, run_limit_seconds, self._running_step, self._give_up)

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters: a request to `generate` counts once, a step as a batch of its sequences."""
        return self._admission.statistics

    @property
    def context_tokens(self) -> int:
        """See `TextModel`."""
        return self._core.context_tokens

    @property
    def can_chat(self) -> bool:
        """See `TextModel`."""
        return self._text.chat_template is not None

    @property
    def adapters(self) -> Sequence[str]:
        """See `TextModel`."""
        return [*self._core.adapters]

    @property
    def state(self) -> EngineState:
        """What the engine holds at this moment."""
        return self._core.state()

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
        return await self._in_thread(render, sum(len(each.get("content") or "") for each in messages))

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
        return encode() if len(text) <= _INLINE_CHARACTERS else await self._in_thread(encode, len(text))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See `TextModel`."""
        decode = partial(self._text.tokenizer.decode, tokens, skip_special_tokens=False)
        return decode() if len(tokens) <= _INLINE_CHARACTERS else await self._in_thread(decode, len(tokens))

    def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        """See `TextModel`."""
        return self._deltas(request.num_answers, partial(self._begun, request))

    def holds(self, request_id: str) -> bool:
        """See `MovableTextModel`."""
        return self._transfers.holds(request_id)

    async def export(self, request_id: str, grant: Callable[[int], object]) -> MovedAnswer:
        """See `MovableTextModel`."""
        return await self._transfers.export(request_id, grant)

    def resume(self, moved: MovedAnswer) -> AsyncGenerator[Delta]:
        """See `MovableTextModel`."""
        return self._deltas(1, partial(self._resumed, moved))

    async def _deltas(self, num_answers: int, begin: Callable[[Ticket], Awaitable[Group]]) -> AsyncGenerator[Delta]:
        """What answers grow by, from their admission to their end."""
        ticket = self._admission.enter(num_answers)
        group: Group | None = None
        failure: TriuneError | None = None
        try:
            group = await begin(ticket)
            del begin
            while not group.is_done:
                await group.until_news()
                for delta in group.take():
                    yield delta
        except TriuneError as error:
            failure = error
            raise
        finally:
            self._cancel_rest(group)
            self._admission.leave(ticket)
            if group is not None and group.is_done:
                self._admission.succeed(ticket, [answer.usage for answer in group.answers])
            else:
                self._admission.fail(ticket, failure)

    def refuse(self) -> None:
        """Refuse waiting and new requests; those that have begun go on."""
        if not self._admission.refusal:
            why = f"model '{self._name}' is being unloaded and takes no new requests; try again later"
            self._admission.refusal = why
            self._thread.refuse(why)

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        await self._admission.until_empty()

    async def close(self) -> None:
        """Refuse waiting and new requests, let those that have begun finish, and free everything."""
        self.refuse()
        await self.drain()
        self._run_limit.close()
        self._thread.stop()
        await in_thread_or_here(self._free)

    def _free(self) -> None:
        self._thread.join()
        self._text.constraints.close()
        self._close_decoder()

    async def _in_thread(self, work: Callable[[], _T], num_characters: int) -> _T:
        """Call `work`, which reads so many characters or tokens, in a thread. Short ones do not wait for long ones."""
        async with contextlib.AsyncExitStack() as slots:
            if num_characters > _LONG_CHARACTERS:
                await slots.enter_async_context(self._large_slots.slot(num_characters))
            await slots.enter_async_context(self._slots.slot(num_characters))
            return await in_thread(work)

    async def _begun(self, request: Generation, ticket: Ticket) -> Group:
        """Hand a request to the thread."""
        prompt = request.prompt
        if isinstance(prompt, str):
            prompt = await self.tokenize(prompt, is_templated=request.is_templated)
        grammar = await self._grammar(request)
        text = self._text
        group = start_group(
            request,
            prompt,
            text.token_bytes,
            text.end_tokens,
            self.context_tokens,
            ticket,
            drops_space=text.drops_space,
            shown=text.tokenizer.special_bytes(request.shown_specials),
            grammar=grammar,
        )
        return self._start(group)

    async def _resumed(self, moved: MovedAnswer, ticket: Ticket) -> Group:
        """Hand an answer that another server began to the thread."""
        self._transfers.check(moved)
        grammar = await self._grammar(moved.request)
        text = self._text
        resume = partial(resume_group, moved, text.token_bytes, ticket, drops_space=text.drops_space, grammar=grammar)
        group = await self._in_thread(resume, len(moved.state.prompt) + len(moved.state.answer))
        return self._start(group)

    async def _grammar(self, request: Generation) -> Grammar | None:
        if request.constraint is None:
            return None
        return await in_thread(self._text.constraints.compile, request.constraint)

    def _start(self, group: Group) -> Group:
        self._admission.require_open()
        self._transfers.add(group)
        for answer in group.answers:
            self._groups[answer.job] = group
        self._run_limit.watch()
        self._thread.add(group.answers[0].job)
        return group

    def _running_step(self) -> Iterator[tuple[EngineThread, int]]:
        """The step that runs and when it began; between steps, one that begins now, if any request is under way."""
        if self._groups and not self._admission.stalled:
            began_ns = self._thread.step_began_ns
            yield self._thread, self._clock.now_ns() if began_ns is None else began_ns

    def _give_up(self, _: EngineThread) -> None:
        """Fail all requests, since a step exceeds its time limit. No library can interrupt it."""
        why = f"a step of model '{self._name}' did not end within {self._run_limit.seconds:g} s"
        self._admission.stalled = f"{why}, and runs on; try again later, or load the model again"
        error = UnavailableError(
            f"{why}, and its answers were given up; allow it more by --run-timeout-secs, or by the model's parameter "
            "'run_timeout_secs'"
        )
        _log.error("%s", error)
        for group in dict.fromkeys(self._groups.values()):
            group.fail(error)

    def _cancel_rest(self, group: Group | None) -> None:
        """Forget the answers of a request, and cancel those that are not finished."""
        if group is None:
            return
        self._transfers.remove(group)
        for answer in group.answers:
            del self._groups[answer.job]
            if answer.finish_reason is None:
                self._thread.cancel(answer.job)

    def _receive(self, outputs: list[Output], times: StepTimes) -> None:
        """Pass the outputs of a step on to their requests. The thread goes on meanwhile."""
        self._admission.stalled = ""
        for output in outputs:
            # A request that was cancelled is unknown here.
            group = self._groups.get(output.job)
            if group is None:
                continue
            try:
                self._pass_on(group, output, times.ended_ns)
            except Exception as error:  # noqa: BLE001 - a defect fails this request, and no other
                _log.exception("model '%s': a token could not be passed on", self._name)
                group.fail(InternalError(f"a token could not be passed on: {type(error).__name__}: {error}"))
        if times.num_sequences:
            self._admission.record_step(times.num_sequences, times.ended_ns - times.started_ns)

    def _pass_on(self, group: Group, output: Output, now_ns: int) -> None:
        answer = group.answers[output.job.index]
        # The thread may have computed one more token before it heard of a stop text.
        if answer.finish_reason is not None:
            return
        self._admission.begin(group.ticket)
        if output.finish_reason is FinishReason.MOVED:
            answer.move()
            group.tell()
            return
        if output.sample is None:
            group.fail(output.error or InternalError("the engine ended an answer without saying why"))
            return
        seconds = (now_ns - answer.last_ns) / 1e9
        if answer.num_tokens:
            self.counters.count_next(seconds)
        else:
            num_cached = output.job.sequence.num_cached_tokens if output.job.sequence is not None else 0
            self.counters.count_first(seconds, len(output.job.prompt), num_cached)
        answer.add(output.sample, output.finish_reason, now_ns)
        if answer.finish_reason is not None and output.finish_reason is None:
            self._thread.cancel(answer.job)
        group.tell()
