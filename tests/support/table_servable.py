"""The reference `Servable`: slow and simple. A function computes its answers, in the next iteration of the event
loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from triune.core.errors import UnavailableError
from triune.core.requests import InferenceResponse
from triune.core.servable import Call, only_answer
from triune.core.statistics import FailureReason, ModelStatistics


def nothing(call: Call) -> InferenceResponse:
    """Compute an answer without outputs."""
    return InferenceResponse(call.request.model, 1, {}, call.request.id)


class TableServable:
    """A simple `Servable` for tests.

    Attributes:
        statistics: its counters.
        calls: the calls that it has received.
        gate: an event. While it is cleared, requests wait.
    """

    def __init__(
        self, answer: Callable[[Call], InferenceResponse] = nothing, statistics: ModelStatistics | None = None
    ) -> None:
        self.statistics = statistics or ModelStatistics()
        self.calls: list[Call] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._answer = answer
        self._tasks: set[asyncio.Task[InferenceResponse]] = set()
        self._is_closed = False

    def submit(self, call: Call) -> asyncio.Future[InferenceResponse]:
        if self._is_closed:
            self.statistics.failures[FailureReason.REJECTED] += 1
            raise UnavailableError("the table is closed")
        self.calls.append(call)
        self.statistics.num_pending += 1
        task = asyncio.get_running_loop().create_task(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._count(task, call))
        return task

    async def _run(self, call: Call) -> InferenceResponse:
        await asyncio.sleep(0)
        await self.gate.wait()
        response = self._answer(call)
        return call.finish.convert(response) if call.finish else response

    def _count(self, task: asyncio.Task[InferenceResponse], call: Call) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is None:
            self.statistics.record_success(call.batch_size, 0, 0, 0, 0, 0)
            return
        self.statistics.num_pending -= 1
        self.statistics.failures[FailureReason.CANCELED if task.cancelled() else FailureReason.BACKEND] += 1

    def stream(self, call: Call) -> AsyncGenerator[InferenceResponse]:
        return only_answer(self, call)

    def refuse(self) -> None:
        self._is_closed = True

    async def drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        self.refuse()
        await self.drain()
