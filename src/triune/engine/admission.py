"""Admits or refuses an engine's requests, and counts them. Use it on the event loop's thread only."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from triune.config.policy import MIN_WAITING, QueueLimits
from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.statistics import FailureReason, ModelStatistics
from triune.core.units import Unit
from triune.engine.generation import Usage

MAX_ANSWERS: Final = 128
"""The largest number of answers to one prompt, as in OpenAI's API."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that was admitted.

    Attributes:
        num_answers: the number of answers that it asks for.
        arrived_ns: when it arrived, in ns of the model's clock.
        has_begun: whether one of its answers has a token, or has failed.
    """

    num_answers: int
    arrived_ns: int
    has_begun: bool = False


class Admission:
    """Counts the running and waiting requests, and refuses requests beyond the limits.

    Attributes:
        statistics: the model's counters, which are Triton's.
        refusal: why no request is accepted any more; empty if requests are accepted.
        stalled: why no request is accepted for the moment; empty if requests are accepted.
    """

    def __init__(
        self, name: str, clock: Clock, statistics: ModelStatistics, max_running: int, limits: QueueLimits
    ) -> None:
        """Args:
        name: the model's name, for errors.
        clock: the clock of arrivals and latencies.
        statistics: the counters to change.
        max_running: the largest number of answers that are computed at the same time.
        limits: how many further answers may wait or be unread by their clients, and how long they may wait.
        """
        self.statistics = statistics
        self.refusal = ""
        self.stalled = ""
        self._name = name
        self._clock = clock
        self._max_answers = max_running + limits.max_requests if limits.max_requests else None
        self._max_ns = limits.max_seconds * 1e9
        self._num_answers = 0
        self._num_requests = 0
        self._waiting: dict[Ticket, None] = {}
        """The requests that have not begun, in the order of their arrival. Of a client's request with several prompts
        only the first prompt is here, since the other ones wait for the first prompts of other clients.
        """
        self._is_empty: asyncio.Event | None = None

    def enter(self, num_answers: int, place: int = 0) -> Ticket:
        """Admit a request. The caller must call `leave` once.

        Args:
            num_answers: the number of requested answers.
            place: the index of its prompt in the client's request.

        Raises:
            InvalidArgumentError: the number of answers is out of range.
            UnavailableError: too many answers are under way, others wait too long, or `refusal` or `stalled` is set.
        """
        now_ns = self._clock.now_ns()
        try:
            self._require_room(num_answers, now_ns)
        except TriuneError:
            self.statistics.record_failure(FailureReason.REJECTED, 0)
            raise
        ticket = Ticket(num_answers, now_ns)
        if not place:
            self._waiting[ticket] = None
        self._num_answers += num_answers
        self._num_requests += 1
        self.statistics.num_pending += 1
        self.statistics.num_waiting += 1
        return ticket

    def begin(self, ticket: Ticket) -> None:
        """Record that an answer has begun. Later calls for the same request do nothing."""
        if not ticket.has_begun:
            ticket.has_begun = True
            self._stop_waiting(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Remove a request from the counts. Call `succeed` or `fail` as well, which record its result."""
        if not ticket.has_begun:
            self._stop_waiting(ticket)
        self._num_answers -= ticket.num_answers
        self._num_requests -= 1
        if not self._num_requests and self._is_empty is not None:
            self._is_empty.set()
            self._is_empty = None

    def require_open(self) -> None:
        """Raise UnavailableError if `refusal` or `stalled` is set."""
        if why := self.refusal or self.stalled:
            raise UnavailableError(why)

    async def until_empty(self) -> None:
        """Wait until no request is under way."""
        while self._num_requests:
            if self._is_empty is None:
                self._is_empty = asyncio.Event()
            await self._is_empty.wait()

    def succeed(self, ticket: Ticket, usages: list[Usage], unit: Unit) -> None:
        """Count a request whose answers are complete. It counts for the unit that computed the last token."""
        statistics = self.statistics
        total_ns = self._clock.now_ns() - ticket.arrived_ns
        queue_ns = min(each.queue_ns for each in usages)
        latencies_ns = (total_ns, queue_ns, 0, total_ns - queue_ns, 0)
        statistics.record_success(1, *latencies_ns)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        statistics.unit_inferences[unit] = statistics.unit_inferences.get(unit, 0) + 1
        if statistics.distributions is not None:
            first_ns = min(each.first_token_ns for each in usages)
            statistics.distributions.record(latencies_ns, (), (), first_response_ns=first_ns)

    def fail(self, ticket: Ticket, error: TriuneError | None) -> None:
        """Count a request that failed with an error, or was cancelled (None)."""
        self.statistics.num_pending -= 1
        self.statistics.record_failure(_reason_of(error), self._clock.now_ns() - ticket.arrived_ns)

    def record_step(self, num_sequences: int, elapsed_ns: int, unit: Unit) -> None:
        """Count a step of a unit as a batch with one request for each sequence."""
        self.statistics.record_batch(num_sequences, 1, 0, elapsed_ns, 0)
        busy = self.statistics.unit_busy_ns
        busy[unit] = busy.get(unit, 0) + elapsed_ns

    def _require_room(self, num_answers: int, now_ns: int) -> None:
        if not 1 <= num_answers <= MAX_ANSWERS:
            raise InvalidArgumentError(f"{num_answers} answers are asked for; it must be between 1 and {MAX_ANSWERS}")
        self.require_open()
        if self._max_answers is not None and self._num_answers + num_answers > self._max_answers:
            raise UnavailableError(
                f"model '{self._name}' has {self._num_answers} answers under way and takes {self._max_answers} at "
                "most; try again later"
            )
        if len(self._waiting) > MIN_WAITING:
            waited_ns = now_ns - next(iter(self._waiting)).arrived_ns
            if waited_ns > self._max_ns:
                raise UnavailableError(
                    f"{len(self._waiting)} requests to model '{self._name}' wait, the first of them for "
                    f"{waited_ns / 1e9:.1f} s; try again later"
                )

    def _stop_waiting(self, ticket: Ticket) -> None:
        self._waiting.pop(ticket, None)
        self.statistics.num_waiting -= 1


def _reason_of(error: TriuneError | None) -> FailureReason:
    match error:
        case None:
            return FailureReason.CANCELED
        case UnavailableError():
            return FailureReason.REJECTED
        case InvalidArgumentError():
            return FailureReason.OTHER
        case _:
            return FailureReason.BACKEND
