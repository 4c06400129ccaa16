"""Give sequences to the engine's thread, and await the end of each."""

import asyncio

from triune.core.clock import Clock
from triune.core.errors import InternalError
from triune.core.units import Unit
from triune.engine.admission import Admission
from triune.engine.core import EngineCore
from triune.engine.job import Job, Output, StepTimes
from triune.engine.sequence import Sequence
from triune.engine.thread import EngineThread


class Jobs:
    """Hands jobs to the engine's thread, which computes all of them together. Used on the event loop's thread."""

    def __init__(self, core: EngineCore, admission: Admission, unit: Unit, clock: Clock, name: str) -> None:
        """Args:
        core: the engine core, which the thread owns from now on.
        admission: counts the steps in the model's statistics.
        unit: the unit that computes the steps.
        clock: the clock of the steps.
        name: the thread's name.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        self._admission = admission
        self._unit = unit
        self._waiting: dict[Job, asyncio.Future[Sequence]] = {}
        self._thread = EngineThread(core, self._receive, clock, name)

    async def run(self, job: Job) -> Sequence:
        """Compute a job to its end. Cancelling it frees its blocks within a step.

        Raises:
            TriuneError: the error with which the job failed.
        """
        future: asyncio.Future[Sequence] = asyncio.get_running_loop().create_future()
        self._waiting[job] = future
        self._thread.add(job)
        try:
            return await future
        finally:
            del self._waiting[job]
            if future.cancelled():
                self._thread.cancel(job)

    def stop(self) -> None:
        """End the thread after the running step. No job may be given afterwards."""
        self._thread.stop()

    def join(self) -> None:
        """Wait for the end of the thread. Blocks."""
        self._thread.join()

    def _receive(self, outputs: list[Output], times: StepTimes) -> None:
        for output in outputs:
            future = self._waiting.get(output.job)
            if output.finish_reason is None or future is None or future.done():
                continue
            sequence = output.job.sequence
            if output.sample is None or sequence is None:
                future.set_exception(output.error or InternalError("the engine ended a text without saying why"))
            else:
                future.set_result(sequence)
        if times.num_sequences:
            self._admission.record_step(times.num_sequences, times.ended_ns - times.started_ns, self._unit)
