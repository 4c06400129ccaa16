"""A servable in place of a version that was unloaded to make room: at a request, it has the model loaded again, and
then passes the request on to the loaded model.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from triune.config.model_config import ModelConfig
from triune.core.clock import Clock
from triune.core.errors import TriuneError, UnavailableError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call
from triune.core.statistics import FailureReason, ModelStatistics
from triune.scheduling.models import LoadedVersion

_NS = 1_000_000_000

_SHORTEST_REST_NS = 1 * _NS
_LONGEST_REST_NS = 60 * _NS
"""After a failed load requests are refused for a while, since a load that fails again may take long. Each failure in a
row doubles this time, in ns, up to this length.
"""

_T = TypeVar("_T")


class Waking(Protocol):
    """Protocol: loads a model that was unloaded to make room, or that was not loaded at the start."""

    def wake(self, name: str) -> "asyncio.Future[None]":
        """Begin to load the model, unless it is loading already. If the load fails, the future has a TriuneError. Do
        not cancel the future.
        """
        ...

    def expected_ns(self, name: str) -> int:
        """The expected time until the model is loaded, whether its load has begun or begins now; 0 if unknown."""
        ...

    def get(self, name: str, version: int | None = None) -> LoadedVersion:
        """The version that serves: see `Models.get`."""
        ...


class ParkedServable:
    """A servable without a model in memory. A request waits until the model is loaded, and the model then answers it.

    A request is refused at once if its timeout ends before the load is expected to end, if too many requests wait
    already, or shortly after a load that failed. The error says when to try again.

    Attributes:
        statistics: the version's counters, from before it was unloaded. Its pending requests do not include those that
            wait for the load.
        adapters: the LoRA adapters that the version had, if it generates text.
    """

    def __init__(
        self,
        config: ModelConfig,
        version: int,
        waking: Waking,
        clock: Clock,
        *,
        max_requests: int,
        statistics: ModelStatistics | None = None,
        adapters: Collection[str] = (),
    ) -> None:
        """Args:
        config: the version's config.
        version: the version's number.
        waking: loads the model.
        clock: the clock of timeouts.
        max_requests: how many requests may wait.
        statistics: the counters of the version that was unloaded; None starts new ones.
        adapters: the LoRA adapters that the version had.
        """
        self.statistics = statistics if statistics is not None else ModelStatistics()
        self.adapters = tuple(adapters)
        self._config = config
        self._version = version
        self._waking = waking
        self._clock = clock
        self._max_requests = max_requests
        self._waiting: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_refusing = False
        self._failure = ""
        self._num_failures = 0
        self._rests_until_ns = 0

    @property
    def is_resting(self) -> bool:
        """Whether requests are refused, since the load failed shortly before."""
        return self._clock.now_ns() < self._rests_until_ns

    @property
    def num_waiting(self) -> int:
        """How many requests wait for the load."""
        return len(self._waiting)

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        """Load the model, and let it answer: see `Servable.submit`."""
        timeout_us = self._admit(call)
        return self._begin(self._answer(call, timeout_us))

    async def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        """Load the model, and yield its answers: see `Servable.stream`."""
        timeout_us = self._admit(call)
        loaded = await self._begin(self._loaded(timeout_us))
        async with aclosing(loaded.servable.stream(_again(call, loaded))) as answers:
            async for each in answers:
                yield each

    async def awake(self) -> None:
        """Wait until the model is loaded, for callers without a request. Raises the same errors as `submit`."""
        self._admit(None)
        await self._begin(self._loaded(0))

    def fail(self, problem: str) -> None:
        """Refuse requests for a while, since the load has failed: waiting ones, and new ones.

        A later request tries again, as the reason may have been a file that was just being written, or a process that
        the system ended.
        """
        self._failure = problem
        rest_ns = min(_SHORTEST_REST_NS << min(self._num_failures, 10), _LONGEST_REST_NS)
        self._num_failures += 1
        self._rests_until_ns = self._clock.now_ns() + rest_ns

    def recover(self) -> None:
        """Let the next request try again at once: the reason why the last load failed is gone."""
        self._failure, self._num_failures, self._rests_until_ns = "", 0, 0

    def refuse(self) -> None:
        """Refuse waiting and new requests. Requests that were passed on to the loaded model go on."""
        self._is_refusing = True
        for each in tuple(self._waiting):
            each.cancel()

    async def drain(self) -> None:
        """Wait until every request is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Refuse waiting and new requests: see `Servable.close`."""
        self.refuse()
        await self.drain()

    def _admit(self, call: Call | None) -> int:
        """Admit a request to wait for the load. Returns its timeout in microseconds, 0 for none. Raises
        UnavailableError if it may not wait.
        """
        name = self._config.name
        if self._is_refusing:
            raise self._refused(f"model '{name}' is being unloaded or replaced; send the request again", 1)
        if self.is_resting:
            raise self._failed()
        seconds = self._waking.expected_ns(name) / _NS
        if self._max_requests and len(self._waiting) >= self._max_requests:
            raise self._refused(
                f"model '{name}' was not in memory and is being loaded; {self._max_requests} requests wait for it "
                "already: try again later",
                seconds,
            )
        timeout_us = self._timeout_us(call) if call is not None else 0
        if timeout_us and seconds > timeout_us / 1e6:
            self._waking.wake(name).add_done_callback(_noticed)
            raise self._refused(
                f"model '{name}' was not in memory and is being loaded, which takes about {seconds:.3g} s, longer than "
                f"the {timeout_us} us that the request may wait: try again later, or allow it a longer timeout",
                seconds,
            )
        return timeout_us

    def _timeout_us(self, call: Call) -> int:
        batching = self._config.batching
        asked = call.request.timeout_us
        default = batching.policy_of(call.request.priority or batching.default_priority_level).default_timeout_us
        return min(asked or default, default or asked)

    def _refused(self, message: str, seconds: float) -> UnavailableError:
        self.statistics.record_failure(FailureReason.REJECTED, 0)
        return UnavailableError(message, retry_after_seconds=max(1, math.ceil(seconds)))

    def _failed(self) -> UnavailableError:
        seconds = max(0, self._rests_until_ns - self._clock.now_ns()) / _NS
        return self._refused(
            f"model '{self._config.name}' was not in memory, and its load failed: {self._failure}; a request after "
            f"{seconds:.3g} s tries it again",
            seconds,
        )

    def _begin(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        self._waiting.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if self._waits_no_more(task) and task.cancelled():
            self.statistics.record_failure(FailureReason.CANCELED, 0)

    def _waits_no_more(self, task: "asyncio.Task[Any] | None") -> bool:
        """Remove a task from the waiting ones. Returns whether it was waiting."""
        if task not in self._waiting:
            return False
        self._waiting.discard(task)
        return True

    async def _answer(self, call: Call, timeout_us: int) -> InferenceResponse:
        loaded = await self._loaded(timeout_us)
        self._waits_no_more(asyncio.current_task())
        return await loaded.servable.submit(_again(call, loaded))

    async def _loaded(self, timeout_us: int) -> LoadedVersion:
        """Wait for the load. Raises UnavailableError after the timeout, or if `refuse` was called."""
        name = self._config.name
        woken = self._waking.wake(name)
        late = asyncio.get_running_loop().create_future()
        timer = None
        if timeout_us:
            timer = self._clock.call_at(self._clock.now_ns() + timeout_us * 1000, lambda: wake_up(late))
        try:
            await asyncio.wait((woken, late), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not self._is_refusing:
                raise
            raise self._refused(f"model '{name}' is being unloaded or replaced; send the request again", 1) from None
        finally:
            late.cancel()
            if timer is not None:
                timer.cancel()
        if not woken.done():
            raise self._refused(
                f"model '{name}' was not in memory, and was not loaded within the {timeout_us} us that the request may "
                "wait: try again later, or allow it a longer timeout",
                self._waking.expected_ns(name) / _NS,
            )
        try:
            woken.result()
        except TriuneError as error:
            if self._failure:
                raise self._failed() from error
            self.statistics.record_failure(FailureReason.OTHER, 0)
            raise
        loaded = self._waking.get(name, self._version)
        if isinstance(loaded.servable, ParkedServable):
            raise self._refused(f"model '{name}' was unloaded again at once; send the request again", 1)
        return loaded


def _again(call: Call, loaded: LoadedVersion) -> Call:
    """Convert a call to the config of the loaded version, which may have changed. Raises InvalidArgumentError if
    the request does not fit it.
    """
    again = loaded.check(call.request)
    again.compute_time, again.bill = call.compute_time, call.bill
    return again


def wake_up(future: "asyncio.Future[None]") -> None:
    """Set the result of a future, unless it is done already."""
    if not future.done():
        future.set_result(None)


def _noticed(future: "asyncio.Future[None]") -> None:
    """Retrieve the error of a load that nobody awaits, so that asyncio does not log it. The model's record has the
    error.
    """
    if not future.cancelled():
        future.exception()
