"""A replica of a text model on one unit: its decoder, its KV cache, its thread, and the jobs that it computes."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from triune.core.clock import Clock
from triune.core.errors import InternalError
from triune.engine.core import EngineCore
from triune.engine.generation import Placement
from triune.engine.job import Job, Output, StepTimes
from triune.engine.kv.hashes import block_hashes
from triune.engine.replicas.rates import Rates
from triune.engine.replicas.router import Outlook
from triune.engine.thread import EngineThread
from triune.hardware.heat.slowing import SpeedWatch

_AGAIN_NS: Final = 10_000_000_000
"""After a step that failed, a unit is given no new answers to compute for this time, in ns, which doubles with each
further failure.
"""

_MOST_DOUBLINGS: Final = 5

Received: TypeAlias = Callable[["Replica", list[Output], StepTimes], None]
"""Called on the event loop's thread with a replica, and with the outputs and times of one of its steps (see
`job.Receive`).
"""


@dataclass(slots=True)
class Left:
    """The remaining work of an answer.

    Attributes:
        num_prompt_tokens: tokens of its prompt to read; 0 after its first token.
        num_tokens: the expected number of tokens still to decode, at least 1.
        then: the replica that decodes the answer after its first token; None means this replica.
        is_stuck: whether an attempt to move the answer has failed.
        is_named: whether its request names the unit, so that it must not move to a faster one.
    """

    num_prompt_tokens: int
    num_tokens: int
    then: "Replica | None" = None
    is_stuck: bool = False
    is_named: bool = False


class Replica:
    """A replica of a text model on one unit. Use it on the event loop's thread only.

    Attributes:
        core: the engine core. Only the replica's thread uses it, except for members that any thread may read.
        placement: its unit, runtime and precision.
        rates: how long its steps take.
        max_answers: the most answers that it computes at the same time.
        is_emulated: whether its unit is emulated.
        speed: detects that the unit has slowed down.
        stalled: why its running step was given up; "" if it was not given up.
        drained: why it gets no new answers; "" if it gets new answers.
        jobs: the answers that it computes, with the remaining work of each.
    """

    def __init__(
        self, core: EngineCore, placement: Placement, rates: Rates, *, max_answers: int = 64, is_emulated: bool = False
    ) -> None:
        """Args:
        core: the replica's engine core, which the replica closes.
        placement: where it runs.
        rates: its measured speeds so far.
        max_answers: the largest number of sequences in its steps.
        is_emulated: whether its unit is emulated: if so, it computes only answers that name it, or that no other unit
            can compute.
        """
        self.core = core
        self.placement = placement
        self.rates = rates
        self.max_answers = max_answers
        self.is_emulated = is_emulated
        self.speed = SpeedWatch()
        self.stalled = ""
        self.drained = ""
        self.jobs: dict[Job, Left] = {}
        self._num_prompt_tokens = 0
        self._num_left = 0
        self._num_failures = 0
        self._failed_ns = 0
        self._failure = ""
        self._thread: EngineThread | None = None

    @property
    def thread(self) -> EngineThread:
        """The replica's thread. Raises InternalError before `start`."""
        if self._thread is None:
            raise InternalError("a replica was not started")
        return self._thread

    def start(self, receive: Received, clock: Clock, name: str) -> None:
        """Start the replica's thread. Raises NoThreadError."""
        self._thread = EngineThread(self.core, lambda outputs, times: receive(self, outputs, times), clock, name)

    def add(self, job: Job, left: Left) -> None:
        """Record that this replica computes a job. `left` is the work that the job still needs."""
        self.jobs[job] = left
        self._num_prompt_tokens += left.num_prompt_tokens
        self._num_left += left.num_tokens

    def forget(self, job: Job) -> Left | None:
        """Record that this replica does not compute a job any more. Returns the job's remaining work; None if the
        replica did not compute it.
        """
        left = self.jobs.pop(job, None)
        if left is not None:
            self._num_prompt_tokens -= left.num_prompt_tokens
            self._num_left -= left.num_tokens
        return left

    def gave(self, job: Job) -> None:
        """Count a token that was generated for a job."""
        left = self.jobs.get(job)
        if left is None:
            return
        self._num_prompt_tokens -= left.num_prompt_tokens
        left.num_prompt_tokens = 0
        if left.num_tokens > 1:
            left.num_tokens -= 1
            self._num_left -= 1

    def count_step(self, times: StepTimes) -> None:
        """Record whether a step failed. After a failed step, `refusal` gives a reason to compute no new answers for a
        while.
        """
        if times.failure is not None:
            self._failure, self._failed_ns = str(times.failure), times.ended_ns
            self._num_failures += 1
        elif times.num_sequences:
            self._num_failures = 0

    def refusal(self, now_ns: int) -> str:
        """Why the replica is given no new answers to compute now: it is lost, hangs, is drained, or a step failed
        shortly before. Empty if it is given some.
        """
        if self.thread.failure is not None:
            return f"'{self.placement.unit.value}' is lost: {self.thread.failure}"
        if self.stalled or self.drained:
            return self.stalled or self.drained
        waiting_ns = _AGAIN_NS << min(self._num_failures - 1, _MOST_DOUBLINGS) if self._num_failures else 0
        if now_ns < self._failed_ns + waiting_ns:
            return f"a step failed on '{self.placement.unit.value}': {self._failure}"
        return ""

    def num_cached(self, tokens: Sequence[int], adapter: str | None) -> int:
        """How many of a prompt's tokens are in the replica's prefix cache. May be called from any thread; takes time in
        proportion to the prompt.
        """
        size = self.core.block_size
        salt = self.core.adapters.get(adapter, b"") if adapter is not None else b""
        return len(self.core.pool.find(block_hashes(tokens[:-1], size, salt))) * size

    def outlook(self, num_cached: int = 0, without: Collection[Job] = ()) -> Outlook:
        """A snapshot of the replica for the router.

        Args:
            num_cached: the number of the new prompt's tokens in its prefix cache.
            without: jobs that are not counted.
        """
        outlook = Outlook(
            self.placement.unit,
            self.rates,
            self._num_prompt_tokens,
            len(self.jobs),
            self._num_left,
            self.max_answers,
            num_cached,
        )
        if not without:
            return outlook
        left = [self.jobs[job] for job in without if job in self.jobs]
        return Outlook(
            outlook.unit,
            outlook.rates,
            outlook.num_prompt_tokens - sum(each.num_prompt_tokens for each in left),
            outlook.num_answers - len(left),
            outlook.num_left - sum(each.num_tokens for each in left),
            outlook.max_answers,
            num_cached,
        )
