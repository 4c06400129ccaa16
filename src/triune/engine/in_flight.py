"""The requests in flight: the tokens that steps compute for them, and what happens if a step fails or hangs."""

import logging
from collections.abc import Iterator, Sequence

from triune.config.limits import RunLimit
from triune.core.clock import Clock
from triune.core.errors import InternalError, UnavailableError
from triune.core.power import Power
from triune.core.units import Unit
from triune.engine.admission import Admission
from triune.engine.counters import EngineCounters
from triune.engine.group import Group
from triune.engine.job import Job, Output, StepTimes
from triune.engine.replicas.replica import Replica
from triune.engine.replicas.replicas import Replicas
from triune.engine.replicas.router import Choice

_log = logging.getLogger(__name__)


class InFlight:
    """Passes the tokens of each step on to the requests that they belong to. Used on the event loop's thread.

    Attributes:
        replicas: the model's replicas, one for each unit.
    """

    def __init__(
        self,
        name: str,
        replicas: Sequence[Replica],
        clock: Clock,
        admission: Admission,
        counters: EngineCounters,
        run_limit_seconds: float,
        power: Power | None,
    ) -> None:
        """Start the threads of the replicas.

        Args:
            name: the model's name.
            replicas: the model's replicas, the preferred one first.
            clock: the clock of all measurements.
            admission: records which requests have begun, which steps ran, and whether all units hang.
            counters: count tokens.
            run_limit_seconds: the time limit of a step.
            power: the server's power mode; None for full power.

        Raises:
            NoThreadError: the system cannot start a thread; none is left running.
        """
        self._name = name
        self._clock = clock
        self._admission = admission
        self._counters = counters
        self._groups: dict[Job, Group] = {}
        self.replicas = Replicas(replicas, self._receive, clock, name, admission.statistics, power)
        self._run_limit = RunLimit(clock, run_limit_seconds, self._running_step, self._give_up)

    def add(self, group: Group, choice: Choice) -> None:
        """Have a replica compute the answers of a request."""
        jobs = [answer.job for answer in group.answers]
        for job in jobs:
            self._groups[job] = group
        self._run_limit.watch()
        self.replicas.add(jobs, choice)

    def remove(self, group: Group) -> None:
        """Forget the answers of a request, and cancel those that are not finished."""
        for answer in group.answers:
            del self._groups[answer.job]
            if answer.finish_reason is None:
                self.replicas.cancel(answer.job)
            self.replicas.forget(answer.job, answer.num_tokens)

    def close(self) -> None:
        """End the threads of the replicas after their running steps. Call this when no request is in flight."""
        self._run_limit.close()
        self.replicas.stop()

    def _running_step(self) -> Iterator[tuple[Replica, int]]:
        """Yield each replica that has jobs, with the time at which its running step began. Between two steps of the
        replica, this is the present time. Replicas whose step was given up are left out.
        """
        for each in self.replicas.all:
            if each.jobs and not each.stalled:
                began_ns = each.thread.step_began_ns
                yield each, self._clock.now_ns() if began_ns is None else began_ns

    def _give_up(self, replica: Replica) -> None:
        """Give up a step that exceeds its time limit, since no library can interrupt it. Other units compute the
        answers of the unit's jobs. If there are no other units, the requests fail.
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
            # A job that follows another one (`Job.followers`) may have been moved or have failed with that one already;
            # it is skipped.
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

    def _receive(self, replica: Replica, outputs: list[Output], times: StepTimes) -> None:
        """Pass the outputs of a unit's step on to their requests. The unit's thread computes the next step
        meanwhile.
        """
        self._admission.stalled = ""
        self.replicas.count(replica, outputs, times)
        unit = replica.placement.unit
        for output in outputs:
            # Outputs of a request that was cancelled meanwhile are dropped: its jobs are not in `_groups` any more.
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
        # The answer has ended by a stop text, and this token is dropped: the thread computed it before it was told of
        # the end.
        if answer.finish_reason is not None:
            return
        self._admission.begin(group.ticket)
        if output.sample is None:
            group.fail(output.error or InternalError("the engine ended an answer without saying why"))
            return
        seconds = (now_ns - answer.last_ns) / 1e9
        if answer.num_tokens:
            self._counters.count_next(seconds)
        else:
            num_cached = output.job.sequence.num_cached_tokens if output.job.sequence is not None else 0
            self._counters.count_first(seconds, output.job.num_prompt_tokens, num_cached)
        answer.units[unit] = answer.units.get(unit, 0) + 1
        answer.add(output.sample, output.finish_reason, now_ns)
        if answer.finish_reason is not None and output.finish_reason is None:
            self.replicas.cancel(answer.job)
        group.tell()
