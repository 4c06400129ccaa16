"""The engine: a model that generates text for many clients at once, on one unit or on several. It implements
`TextModel`.
"""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from triune.config.policy import QueueLimits
from triune.core.clock import Clock
from triune.core.errors import TriuneError
from triune.core.power import Power
from triune.core.statistics import ModelStatistics
from triune.core.threads import in_thread_or_here
from triune.core.units import Unit
from triune.engine.admission import Admission, Ticket
from triune.engine.counters import EngineCounters, EngineState
from triune.engine.generation import Delta, Generation, Placement
from triune.engine.group import Group, resume_group, start_group
from triune.engine.in_flight import InFlight
from triune.engine.moving.transfers import Movable, Transfers
from triune.engine.moving.wire import MovedAnswer
from triune.engine.replicas.replica import Replica
from triune.engine.structured.compiler import Grammar
from triune.engine.text.side import TextSide
from triune.engine.text.work import TextWork

_DEFAULT_LIMITS: Final = QueueLimits()


class Engine:
    """A `TextModel` on one or several units. It is created and used on the event loop's thread; each unit has a thread
    for its steps.

    Attributes:
        counters: the totals of tokens, and the times between them.
        replicas: the model's replicas, one for each unit.
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
        replicas: the model's replicas, one for each unit, the preferred one first; the engine closes them.
        text: the tokenizer and the chat template.
        clock: the clock of all measurements.
        name: the model's name, for errors and for the names of the threads.
        statistics: the model's counters; None makes new ones.
        limits: how many answers may wait or be unread by their clients, besides those that run, and how long they may
            wait.
        close_decoder: frees the decoders; called in a thread by `close`.
        run_limit_seconds: the time limit of a step. If a step takes longer, another unit computes its answers. If there
            is no other unit, the requests get an error, and new requests are refused until the step has ended.
        movable: the data that are needed to move answers to another server; None means that no answer may be moved.
        power: the server's power mode; None for full power.

        Raises:
            NoThreadError: the system cannot start a thread. The caller still owns the decoders then.
        """
        self.counters = EngineCounters()
        self._text = text
        self._name = name
        self._close_decoder = close_decoder
        statistics = statistics or ModelStatistics()
        max_running = sum(each.max_answers for each in replicas)
        self._admission = Admission(name, clock, statistics, max_running, limits)
        self._text_work = TextWork(name, text)
        self._in_flight = InFlight(name, replicas, clock, self._admission, self.counters, run_limit_seconds, power)
        self.replicas = self._in_flight.replicas
        self._transfers = Transfers(name, movable, self.replicas)

    @property
    def statistics(self) -> ModelStatistics:
        """Triton's counters. Each call of `generate` counts as a request, and each step as a batch of its sequences."""
        return self._admission.statistics

    @property
    def placement(self) -> Placement:
        """Implements `TextModel.placement`."""
        return self.replicas.all[0].placement

    @property
    def context_tokens(self) -> int:
        """Implements `TextModel.context_tokens`: the number of tokens that fit into the cache of every unit."""
        return min(each.core.context_tokens for each in self.replicas.all)

    def room_behind(self, num_prompt_tokens: int) -> int:
        """Implements `TextModel.room_behind`."""
        rules, context_tokens = self._text.rules, self.context_tokens
        if rules is None:
            return context_tokens - num_prompt_tokens
        # The decoder's first token is the start token, so that an answer may have one token less than the context.
        return context_tokens - 1 if num_prompt_tokens <= rules.max_tokens else 0

    @property
    def can_chat(self) -> bool:
        """Implements `TextModel.can_chat`."""
        return self._text.chat_template is not None

    @property
    def adapters(self) -> Sequence[str]:
        """Implements `TextModel.adapters`."""
        return [*self.replicas.all[0].core.adapters]

    @property
    def state(self) -> EngineState:
        """The sums of the states of all units."""
        first, *others = self.states.values()
        return sum(others, first)

    @property
    def states(self) -> Mapping[Unit, EngineState]:
        """The state of each unit."""
        return {each.placement.unit: each.core.state() for each in self.replicas.all}

    @property
    def moves(self) -> Mapping[tuple[Unit, Unit, str], int]:
        """The number of answers that were moved between units: see `Moves.counts`."""
        return self.replicas.moves.counts

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Implements `TextModel.render`."""
        return await self._text_work.render(
            messages, tools, variables or {}, add_generation_prompt=add_generation_prompt
        )

    async def tokenize(self, text: str, *, is_templated: bool = False) -> list[int]:
        """Implements `TextModel.tokenize`."""
        return await self._text_work.tokenize(text, self.context_tokens, is_templated=is_templated)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Implements `TextModel.detokenize`."""
        return await self._text_work.detokenize(tokens)

    def generate(self, request: Generation) -> AsyncGenerator[Delta]:
        """Implements `TextModel.generate`."""
        return self._deltas(request.num_answers, partial(self._begun, request), request.place)

    def holds(self, request_id: str) -> bool:
        """Implements `MovableTextModel.holds`."""
        return self._transfers.holds(request_id)

    async def export(self, request_id: str, grant: Callable[[int], object]) -> MovedAnswer:
        """Implements `MovableTextModel.export`."""
        return await self._transfers.export(request_id, grant)

    async def move(self, request_id: str, unit: Unit) -> None:
        """Implements `MovableTextModel.move`."""
        await self._transfers.move(request_id, unit)

    def set_drained(self, unit: Unit, why: str) -> int:
        """Implements `MovableTextModel.set_drained`."""
        return self.replicas.drain(unit, why)

    def resume(self, moved: MovedAnswer) -> AsyncGenerator[Delta]:
        """Implements `MovableTextModel.resume`."""
        return self._deltas(1, partial(self._resumed, moved))

    async def _deltas(
        self, num_answers: int, begin: Callable[[Ticket], Awaitable[Group]], place: int = 0
    ) -> AsyncGenerator[Delta]:
        """Yield the deltas of answers, from their admission to their end.

        Args:
            num_answers: the number of answers, which are admitted or refused together.
            begin: makes the group of the answers, and has replicas compute them.
            place: the index of the prompt in the client's request.
        """
        ticket = self._admission.enter(num_answers, place)
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
            if group is not None:
                self._transfers.remove(group)
                self._in_flight.remove(group)
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
        """Refuse waiting and new requests, wait for the running ones, and free everything."""
        self.refuse()
        await self.drain()
        self._in_flight.close()
        await in_thread_or_here(self._free)

    def _free(self) -> None:
        self.replicas.join()
        self._text.constraints.close()
        self._close_decoder()

    async def _begun(self, request: Generation, ticket: Ticket) -> Group:
        """Tokenize the prompt of a new request, compile its constraint, and pass its jobs to a replica's thread."""
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
            rules=text.rules,
        )
        return await self._start(group)

    async def _resumed(self, moved: MovedAnswer, ticket: Ticket) -> Group:
        """Check an answer that another server began, and pass its job to a replica's thread."""
        self._transfers.check(moved)
        grammar = await self._grammar(moved.request)
        text = self._text
        resume = partial(
            resume_group,
            moved,
            text.token_bytes,
            ticket,
            drops_space=text.drops_space,
            grammar=grammar,
            rules=text.rules,
        )
        group = await self._text_work.in_thread(resume, len(moved.state.prompt) + len(moved.state.answer))
        return await self._start(group)

    async def _grammar(self, request: Generation) -> Grammar | None:
        if request.constraint is None:
            return None
        return await self._text.constraints.compile_in_turn(request.constraint)

    async def _start(self, group: Group) -> Group:
        jobs = [answer.job for answer in group.answers]
        choice = await self.replicas.choose(jobs[0], len(jobs), group.request.unit)
        self._admission.require_open()
        self._transfers.add(group)
        self._in_flight.add(group, choice)
        return group
