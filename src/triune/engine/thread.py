"""The engine's thread: it receives jobs from the event loop, computes steps, and passes the tokens back."""

import asyncio
import contextlib
import logging
import queue
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar, cast

from triune.core.clock import Clock
from triune.core.errors import InternalError, TriuneError, UnavailableError
from triune.core.threads import start_thread
from triune.engine.core import EngineCore
from triune.engine.job import Job, Output, Receive, StepTimes
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.sequence import FinishReason, Sequence

_CHECK_SECONDS: Final = 1.0
"""The time for which the engine is idle before it checks its invariants, so that the check does not delay a request
that follows soon.
"""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_PART_TOKENS = 64
"""The keys and values that another engine computed are written to the cache in parts of this many tokens, one part
before each step, so that other answers go on in between.
"""


class EngineThread:
    """Owns an `EngineCore`. Call its methods on the event loop's thread; they return at once.

    Attributes:
        step_began_ns: when the running step began; None between steps. Any thread may read it.
        failure: why it computes nothing any more; None while it computes. Any thread may read it.
    """

    def __init__(self, core: EngineCore, receive: Receive, clock: Clock, name: str) -> None:
        """Start the thread.

        Args:
            core: used by the thread only.
            receive: called on the event loop's thread with the outputs and times of each step.
            clock: the clock of the steps.
            name: the thread's name, for debuggers.

        Raises:
            NoThreadError: the system cannot start a thread.
        """
        self._core = core
        self._receive = receive
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._jobs: dict[Sequence, Job] = {}
        self._moving: deque[Job] = deque()
        """Jobs of other engines, whose keys and values are being written to the cache, a part before each step."""
        self.step_began_ns: int | None = None
        self._is_closing = False
        self.failure: TriuneError | None = None
        self._thread = start_thread(self._work, name)

    def add(self, job: Job) -> None:
        """Compute a job; once it has its first token, compute the other answers to the same prompt, its `followers`."""
        self._commands.put(partial(self._add, job))

    def cancel(self, job: Job) -> None:
        """End a job without an output; its blocks are free before the next step begins."""
        job.is_cancelled = True
        self._commands.put(partial(self._cancel, job))

    async def export(self, job: Job, *, form: str = "", max_tokens: int | None = None) -> SequenceState:
        """Remove a job between two steps, and return its state: see `EngineCore.export`. All its outputs are received
        before this returns.

        Raises:
            UnavailableError: the job has ended; `EngineCore.export` names further causes.
        """

        def export() -> SequenceState:
            if job in self._moving and job.state is not None:
                # Return the state with which the job was moved here, since it has not gone on yet.
                self._moving.remove(job)
                fits = job.state.cached.form in ("", form)
                return job.state if fits else replace(job.state, cached=KeysAndValues())
            state = self._core.export(sequence := self._running(job), form=form, max_tokens=max_tokens)
            del self._jobs[sequence]
            return state

        return await self._call(export)

    def refuse(self, why: str) -> None:
        """Fail the jobs that have not begun with an UnavailableError. The `followers` (other answers to the same
        prompt) of jobs that have begun will still be computed.
        """
        self._commands.put(partial(self._refuse, why))

    def stop(self) -> None:
        """End the thread after the running step. No other call may follow, except `join`."""
        self._commands.put(self._close)

    def join(self) -> None:
        """Wait for the end of the thread. Blocks."""
        self._thread.join()

    def _work(self) -> None:
        has_checked = True
        while not self._is_closing:
            try:
                is_idle = (self._core.is_idle and not self._moving) or self.failure is not None
                if is_idle and self._core.share is not None:
                    self._core.share.withdraw()
                if is_idle and not self._wait(has_checked):
                    has_checked = True
                    self._core.check()
                while not self._commands.empty():
                    self._commands.get()()
                if self._moving and self.failure is None:
                    has_checked = False
                    self._move_part()
                if not self._core.is_idle and self.failure is None:
                    has_checked = False
                    self._step()
            except BaseException as error:  # noqa: BLE001 - a defect or a panic fails the jobs, and the thread goes on
                self._begin_anew(error)
        try:
            self._core.close()
        except BaseException:  # noqa: BLE001 - the thread ends, and whoever waits for its end must not wait for ever
            _log.exception("the engine could not be closed")

    def _wait(self, has_checked: bool) -> bool:
        """Wait for a command, and run it. Returns False if none came for _CHECK_SECONDS, so that there is time to check
        the invariants. If `has_checked`, they need no check, and this waits without a limit.
        """
        try:
            command = self._commands.get(timeout=None if has_checked else _CHECK_SECONDS)
        except queue.Empty:
            return False
        command()
        return True

    def _step(self) -> None:
        if self._core.share is not None:
            self._core.share.begin()
        started_ns = self.step_began_ns = self._clock.now_ns()
        try:
            results = self._core.step()
        finally:
            self.step_began_ns = None
            if self._core.share is not None:
                self._core.share.end(self._core.last_plan.num_tokens, has_more=not self._core.is_idle)
        ended_ns = self._clock.now_ns()
        outputs: list[Output] = []
        failure = self._core.failure
        for place, (sequence, sample) in enumerate(results):
            job = self._jobs[sequence]
            if place + 1 < len(results) and results[place + 1][0] is sequence:
                outputs.append(Output(job, sample, None))
                continue
            can_retry = failure is not None and sequence.error is failure
            outputs.append(Output(job, sample, sequence.finish_reason, sequence.error, can_retry))
            if sequence.finish_reason is not None:
                del self._jobs[sequence]
            if job.followers:
                followers, job.followers = job.followers, ()
                for follower in followers:
                    self._add(follower)
        plan = self._core.last_plan
        times = StepTimes(started_ns, ended_ns, len(plan.pieces), plan.num_read, plan.num_going, failure)
        self._send(outputs, times)

    def _add(self, job: Job) -> None:
        if job.is_cancelled:
            return
        try:
            if self.failure is not None:
                self._fail([job], self.failure, can_retry=True)
                return
            if job.state is not None:
                self._moving.append(job)
                return
            job.sequence = self._core.add(
                job.prompt,
                job.sampling,
                job.ending,
                priority=job.priority,
                index=job.index,
                matcher=job.matcher,
                adapter=job.adapter,
                rules=job.rules,
                memory=job.memory,
                salt=job.salt,
                source=job.source,
                place=job.place,
                num_prompt_logprobs=job.num_prompt_logprobs,
            )
        except TriuneError as error:
            self._fail([job, *job.followers], error)
        except Exception as error:  # noqa: BLE001 - a defect that one request meets fails no other request
            self._fail_alone([job, *job.followers], error)
        else:
            self._jobs[job.sequence] = job

    def _move_part(self) -> None:
        """Write the next part of a moved job's keys and values into the cache. The job that has waited longest is the
        first; when all its keys and values are written, it continues as a sequence of the core.
        """
        job = self._moving.popleft()
        state = job.state
        if job.is_cancelled or state is None:
            return
        try:
            if self._core.prepare(state, salt=job.salt, most_tokens=_PART_TOKENS):
                # This job stays the first until all its keys and values are written: those of other jobs might evict
                # them.
                self._moving.appendleft(job)
                return
            job.state = None
            # Tokens whose keys and values did not fit the cache are computed again, like a prompt.
            state = replace(state, cached=KeysAndValues())
            job.sequence = self._core.resume(state, salt=job.salt, matcher=job.matcher, before=job.before)
        except TriuneError as error:
            self._fail([job], error, can_retry=job.before is not None)
        except Exception as error:  # noqa: BLE001 - as in `_add`
            self._fail_alone([job], error)
        else:
            self._jobs[job.sequence] = job

    def _running(self, job: Job) -> Sequence:
        if job.sequence is None or self._jobs.get(job.sequence) is not job:
            raise UnavailableError("the answer has ended, so that it cannot be moved")
        return job.sequence

    async def _call(self, work: Callable[[], _T]) -> _T:
        """Have the thread call `work` between two steps, and return its result."""
        future: asyncio.Future[_T] = self._loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(cast("_T", result))

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - the caller gets it
                error = raised
            # RuntimeError means that the event loop is closed, so that nobody waits for the result.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(settle, result, error)

        self._commands.put(run)
        return await future

    def _cancel(self, job: Job) -> None:
        if job.sequence is not None and self._jobs.pop(job.sequence, None) is not None:
            self._core.cancel(job.sequence)

    def _refuse(self, why: str) -> None:
        for sequence, job in list(self._jobs.items()):
            if sequence.started_ns is None and not job.index:
                self._cancel(job)
                self._fail([job, *job.followers], UnavailableError(why))
        moving = [job for job in self._moving if not job.is_cancelled and job.before is None]
        for job in moving:
            self._moving.remove(job)
        if moving:
            self._fail(moving, UnavailableError(why))

    def _close(self) -> None:
        self._is_closing = True
        for job in list(self._jobs.values()):
            self._cancel(job)
        if self.failure is None:
            self._core.check()

    def _begin_anew(self, error: BaseException) -> None:
        """Fail all jobs after an error in the thread's own work, and go on with an empty cache. Should even that fail,
        all future jobs fail too.
        """
        _log.error("the engine's bookkeeping failed; its answers end, and it begins anew", exc_info=error)
        told = f"the engine's bookkeeping failed: {type(error).__name__}: {error}"
        failure = InternalError(f"{told}; the engine has begun anew with an empty cache: send the request again")
        try:
            self._core.reset()
        except BaseException as last:  # noqa: BLE001 - the jobs are told
            _log.critical("the engine cannot begin anew; load the model again", exc_info=last)
            self.failure = failure = InternalError(f"{told}; load the model again")
        failure.__cause__ = error
        jobs = [*self._jobs.values(), *self._moving]
        self._jobs.clear()
        self._moving.clear()
        self._fail(jobs, failure, can_retry=True, is_engines=True)

    def _fail_alone(self, jobs: list[Job], error: Exception) -> None:
        """Fail the jobs of a request after an unexpected error. The other jobs go on, unless the error has broken the
        engine's invariants.

        Raises:
            InternalError: an invariant is broken.
        """
        _log.error("a request met a defect of the engine and fails; the other requests go on", exc_info=error)
        self._fail(jobs, InternalError(f"the engine cannot take this request: {type(error).__name__}: {error}"))
        self._core.check()

    def _fail(self, jobs: list[Job], error: TriuneError, *, can_retry: bool = False, is_engines: bool = False) -> None:
        """End jobs with an error.

        Args:
            jobs: the jobs.
            error: their error.
            can_retry: whether another unit may compute them.
            is_engines: whether the engine failed, and not a job, so that new jobs go to other units for a while, as
                after a step that failed.
        """
        now_ns = self._clock.now_ns()
        outputs = [Output(job, None, FinishReason.ERROR, error, can_retry) for job in jobs]
        self._send(outputs, StepTimes(now_ns, now_ns, 0, failure=error if is_engines else None))

    def _send(self, outputs: list[Output], times: StepTimes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._receive, outputs, times)
        except RuntimeError:
            # The event loop is closed, so that nobody waits for answers any more: end the thread.
            self._is_closing = True
