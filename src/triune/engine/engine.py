"""The engine: a model that generates text for many clients at once, on one unit or on several. It implements
`TextModel`.
"""

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
from triune.core.power import Power
from triune.core.statistics import ModelStatistics
from triune.core.threads import in_thread, in_thread_or_here
from triune.core.units import Unit
from triune.engine.admission import Admission, Ticket
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Delta, Generation, Placement
from triune.engine.group import Group, resume_group, start_group
from triune.engine.job import Job, Output, StepTimes
from triune.engine.moving.transfers import Movable, Transfers
from triune.engine.moving.wire import MovedAnswer
from triune.engine.replicas.replica import Replica
from triune.engine.replicas.replicas import Replicas
from triune.engine.structured.compiler import Grammar
from triune.engine.text.side import TextSide

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_DEFAULT_LIMITS: Final = QueueLimits()

_INLINE_CHARACTERS: Final = 256
"""Texts up to this length are tokenized on the event loop's thread, which takes less than 0.1 ms, if the tokenizer is
quick on every short text.
"""

_LONG_CHARACTERS: Final = 100_000
"""Not all threads tokenize longer texts at the same time."""

_MAX_THREADS: Final = 4
"""The most threads that tokenize and render templates at the same time."""


class Engine:
    """A `TextModel`. Made and used on the event loop's thread; steps run on a thread of each unit.

    Attributes:
        counters: the counts of tokens.
        replicas: the units that compute it.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        text: TextSide,
        clock: Clock,
        *,
        name: str,
        statistics: ModelStatistics | None = None,
        limits: QueueLimits = _DEFAULT_LIMITS,
        close_decoder: Callable[[], None] = lambda: None,
        run_limit_seconds: float = math.inf,
        movable: Movable | None = None,
        power: Power | None = None,
    ) -> None:
        """Args:
        replicas: the model's replicas, one for each unit, the preferred one first; the engine owns them from now on.
        text: tokenizer and chat template.
        clock: the clock of all measurements.
        name: the model's name, for errors and for the names of the threads.
        statistics: the counters; None makes new ones.
        limits: how many answers may wait or be unread, besides those that run, and how long they may wait.
        close_decoder: frees the decoders; called in a thread by `close`.
        run_limit_seconds: the time limit of a step. After it, another unit computes its answers, and where there is
            none, requests get an error, and new ones are refused until the step has ended.
        movable: what the engine needs to move answers to another server; None: none may be moved.
        power: the server's power mode; None for full power.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the decoders then.
        """
        self.counters = EngineCounters()
        self._text = text
        self._clock = clock
        self._name = name
        self._close_decoder = close_decoder
        statistics = statistics or ModelStatistics()
        max_running = sum(each.max_answers for each in replicas)
        self._admission = Admission(name, clock, statistics, max_running, limits)
        self._slots = FairSlots(_MAX_THREADS)
        self._large_slots = FairSlots(max(1, _MAX_THREADS - 1))
        self._longest_token = max(map(len, text.token_bytes), default=1)
        self._groups: dict[Job, Group] = {}
        self.replicas = Replicas(replicas, self._receive, clock, name, statistics, power)
        self._transfers = Transfers(name, movable, self.replicas)
        self._run_limit = RunLimit(clock, run_limit_seconds, self._running_step, self._give_up)

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters: a request to `generate` counts once, a step as a batch of its sequences."""
        return self._admission.statistics

    @property
    def placement(self) -> Placement:
        """See `TextModel`."""
        return self.replicas.all[0].placement

    @property
    def context_tokens(self) -> int:
        """See `TextModel`. As many as fit the cache of each unit."""
        return min(each.core.context_tokens for each in self.replicas.all)

    @property
    def can_chat(self) -> bool:
        """See `TextModel`."""
        return self._text.chat_template is not None

    @property
    def adapters(self) -> Sequence[str]:
        """See `TextModel`."""
        return [*self.replicas.all[0].core.adapters]

    @property
    def state(self) -> EngineState:
        """What all units hold at this moment."""
        first, *others = self.states.values()
        return sum(others, first)

    @property
    def states(self) -> Mapping[Unit, EngineState]:
        """What each unit holds at this moment."""
        return {each.placement.unit: each.core.state() for each in self.replicas.all}

    @property
    def moves(self) -> Mapping[tuple[Unit, Unit, str], int]:
        """How many answers were moved between units: see `Moves.counts`."""
        return self.replicas.moves.counts

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
        is_inline = len(text) <= _INLINE_CHARACTERS and self._text.tokenizer.is_quick
        return encode() if is_inline else await self._in_thread(encode, len(text))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See `TextModel`."""
        decode = partial(self._text.tokenizer.decode, tokens, skip_special_tokens=False)
        is_inline = len(tokens) <= _INLINE_CHARACTERS and self._text.tokenizer.is_quick
        return decode() if is_inline else await self._in_thread(decode, len(tokens))

    def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        """See `TextModel`."""
        return self._deltas(request.num_answers, partial(self._begun, request))

    def holds(self, request_id: str) -> bool:
        """See `MovableTextModel`."""
        return self._transfers.holds(request_id)

    async def export(self, request_id: str, grant: Callable[[int], object]) -> MovedAnswer:
        """See `MovableTextModel`."""
        return await self._transfers.export(request_id, grant)

    async def move(self, request_id: str, unit: Unit) -> None:
        """See `MovableTextModel`."""
        await self._transfers.move(request_id, unit)

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
                usages = [answer.usage for answer in group.answers]
                self._admission.succeed(ticket, usages, usages[0].placements[-1].unit)
            else:
                self._admission.fail(ticket, failure)

    def refuse(self) -> None:
        """Refuse waiting and new requests; those that have begun go on."""
        if not self._admission.refusal:
            why = f"model '{self._name}' is being unloaded and takes no new requests; try again later"
            self._admission.refusal = why
            self.replicas.refuse(why)

    async def drain(self) -> None:
        """Wait until no request waits or runs."""
        await self._admission.until_empty()

    async def close(self) -> None:
        """Refuse waiting and new requests, let those that have begun finish, and free everything."""
        self.refuse()
        await self.drain()
        self._run_limit.close()
        self.replicas.stop()
        await in_thread_or_here(self._free)

    def _free(self) -> None:
        self.replicas.join()
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
        return await self._start(group)

    async def _resumed(self, moved: MovedAnswer, ticket: Ticket) -> Group:
        """Hand an answer that another server began to the thread."""
        self._transfers.check(moved)
        grammar = await self._grammar(moved.request)
        text = self._text
        resume = partial(resume_group, moved, text.token_bytes, ticket, drops_space=text.drops_space, grammar=grammar)
        group = await self._in_thread(resume, len(moved.state.prompt) + len(moved.state.answer))
        return await self._start(group)

    async def _grammar(self, request: Generation) -> Grammar | None:
        if request.constraint is None:
            return None
        return await in_thread(self._text.constraints.compile, request.constraint)

    async def _start(self, group: Group) -> Group:
        jobs = [answer.job for answer in group.answers]
        choice = await self.replicas.choose(jobs[0], len(jobs), group.request.unit)
        self._admission.require_open()
        self._transfers.add(group)
        for job in jobs:
            self._groups[job] = group
        self._run_limit.watch()
        self.replicas.add(jobs, choice)
        return group

    def _running_step(self) -> Iterator[tuple[Replica, int]]:
        """The steps that run and when they began; between steps, one that begins now, if any request is under way."""
        for each in self.replicas.all:
            if each.jobs and not each.stalled:
                began_ns = each.thread.step_began_ns
                yield each, self._clock.now_ns() if began_ns is None else began_ns

    def _give_up(self, replica: Replica) -> None:
        """Give up a step that exceeds its time limit. No library can interrupt it. Other units compute its answers, as
        far as there are others; else their requests fail.
        """
        where = f" on '{replica.placement.unit.value}'" if len(self.replicas.all) > 1 else ""
        why = f"a step of model '{self._name}'{where} did not end within {self._run_limit.seconds:g} s"
        replica.stalled = f"{why}, and runs on; try again later, or load the model again"
        if all(each.stalled for each in self.replicas.all):
            self._admission.stalled = replica.stalled
        error = UnavailableError(
            f"{why}, and its answers were given up; allow it more by --run-timeout-secs, or by the model's parameter "
            "'run_timeout_secs'"
        )
        _log.error("%s", error)
        for job in list(replica.jobs):
            # Those that follow another one go on with it.
            if job in replica.jobs and not self._retry(job, str(error)):
                self._groups[job].fail(error)

    def _retry(self, job: Job, why: str) -> bool:
        """Have another unit compute a job whose unit failed. Returns whether one does."""
        group = self._groups.get(job)
        if group is None:
            return False
        answer = group.answers[job.index]
        other = self.replicas.moves.retried(job, answer.num_tokens, why)
        if other is None:
            return False
        del self._groups[job]
        self._groups[other] = group
        answer.job = other
        self._run_limit.watch()
        return True

    def _cancel_rest(self, group: Group | None) -> None:
        """Forget the answers of a request, and cancel those that are not finished."""
        if group is None:
            return
        self._transfers.remove(group)
        for answer in group.answers:
            del self._groups[answer.job]
            if answer.finish_reason is None:
                self.replicas.cancel(answer.job)
            self.replicas.forget(answer.job, answer.num_tokens)

    def _receive(self, replica: Replica, outputs: list[Output], times: StepTimes) -> None:
        """Pass the outputs of a unit's step on to their requests. Its thread goes on meanwhile."""
        self._admission.stalled = ""
        self.replicas.count(replica, outputs, times)
        unit = replica.placement.unit
        for output in outputs:
            # A request that was cancelled is unknown here.
            group = self._groups.get(output.job)
            if group is None or (output.can_retry and self._retry(output.job, str(output.error))):
                continue
            try:
                self._pass_on(group, output, times.ended_ns, unit)
            except Exception as error:  # noqa: BLE001 - a defect fails this request, and no other
                _log.exception("model '%s': a token could not be passed on", self._name)
                group.fail(InternalError(f"a token could not be passed on: {type(error).__name__}: {error}"))
        if times.num_sequences:
            self._admission.record_step(times.num_sequences, times.ended_ns - times.started_ns, unit)

    def _pass_on(self, group: Group, output: Output, now_ns: int, unit: Unit) -> None:
        answer = group.answers[output.job.index]
        # The thread may have computed one more token before it heard of a stop text.
        if answer.finish_reason is not None:
            return
        self._admission.begin(group.ticket)
        if output.sample is None:
            group.fail(output.error or InternalError("the engine ended an answer without saying why"))
            return
        seconds = (now_ns - answer.last_ns) / 1e9
        if answer.num_tokens:
            self.counters.count_next(seconds)
        else:
            num_cached = output.job.sequence.num_cached_tokens if output.job.sequence is not None else 0
            self.counters.count_first(seconds, len(output.job.prompt), num_cached)
        answer.units[unit] = answer.units.get(unit, 0) + 1
        answer.add(output.sample, output.finish_reason, now_ns)
        if answer.finish_reason is not None and output.finish_reason is None:
            self.replicas.cancel(answer.job)
        group.tell()
