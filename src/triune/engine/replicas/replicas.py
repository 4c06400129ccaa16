"""The replicas of a text model: chooses the replica of each answer, and decides when answers are moved."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.power import Power
from triune.core.preference import UnitPreference
from triune.core.statistics import ModelStatistics
from triune.core.threads import NoThreadError
from triune.core.units import Unit
from triune.engine.job import Job, Output, StepTimes
from triune.engine.replicas.candidates import Candidates
from triune.engine.replicas.moves import Moves
from triune.engine.replicas.replica import Left, Received, Replica
from triune.engine.replicas.router import Asked, Choice

_log = logging.getLogger(__name__)


class Replicas:
    """The replicas of a text model: starts them, divides jobs among them, and stops them. Used on the event loop's
    thread.

    Attributes:
        all: the replicas, the preferred one first.
        moves: moves answers between replicas, and counts the moves.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        receive: Received,
        clock: Clock,
        name: str,
        statistics: ModelStatistics,
        power: Power | None = None,
    ) -> None:
        """Start the threads of the replicas.

        Args:
            replicas: at least one, the preferred one first; each on a unit of its own.
            receive: the function that receives the outputs of all replicas.
            clock: the clock of the steps.
            name: the model's name.
            statistics: the model's counters.
            power: the server's power mode; None for full power.

        Raises:
            NoThreadError: the system cannot start a thread; none is left running.
        """
        self.all = replicas
        self._name = name
        self._statistics = statistics
        self._power = power
        self._hot: object = None
        self._where: dict[Job, Replica] = {}
        preference = UnitPreference(power, statistics) if power is not None else None
        self._candidates = Candidates(replicas, clock, preference)
        self.moves = Moves(name, self._where, self._candidates)
        started: list[Replica] = []
        try:
            for each in replicas:
                each.start(receive, clock, name if len(replicas) == 1 else f"{name} {each.placement.unit.value}")
                started.append(each)
        except NoThreadError:
            for each in started:
                each.thread.stop()
                each.thread.join()
            raise

    def of(self, job: Job) -> Replica:
        """The replica that computes a job. Raises UnavailableError if it has ended."""
        found = self._where.get(job)
        if found is None:
            raise UnavailableError("the answer has ended")
        return found

    def on(self, unit: Unit) -> Replica:
        """The replica on a unit. Raises InvalidArgumentError if there is none."""
        for each in self.all:
            if each.placement.unit is unit:
                return each
        units = ", ".join(each.placement.unit.value for each in self.all)
        raise InvalidArgumentError(f"model '{self._name}' does not run on '{unit.value}'; it runs on {units}")

    async def choose(self, job: Job, num_answers: int, unit: Unit | None = None) -> Choice:
        """Choose the replica for a job that has not begun; `Choice.place` is its index in `all`.

        Args:
            job: the job.
            num_answers: the number of answers to its prompt.
            unit: the unit that its request names; None if it names none.

        Raises:
            InvalidArgumentError: the model does not run on the unit.
        """
        if unit is not None:
            place = self.all.index(self.on(unit))
            return Choice(place, place, f"the request names '{unit.value}'", is_named=True)
        if len(self.all) == 1:
            return Choice(0, 0, self.all[0].placement.reason)
        return await self._candidates.choose(job, num_answers)

    def add(self, jobs: Sequence[Job], choice: Choice) -> None:
        """Let a replica compute the first of `jobs`. The other jobs follow it: the replica computes them after its
        first token.
        """
        replica, then = self.all[choice.place], self.all[choice.then]
        for place, job in enumerate(jobs):
            self._where[job] = replica
            num_to_read = 0 if place or job.state is not None else job.num_prompt_tokens
            left = Left(num_to_read, self._candidates.expected_of(job))
            left.then = then if then is not replica else None
            left.is_named = choice.is_named
            replica.add(job, left)
            job.placements.append(replace(replica.placement, reason=choice.reason))
        replica.thread.add(jobs[0])

    def forget(self, job: Job, num_tokens: int) -> None:
        """Stop counting a job, which has ended with `num_tokens` tokens."""
        replica = self._where.pop(job, None)
        if replica is not None:
            replica.forget(job)
            self._candidates.record_length(num_tokens)

    def cancel(self, job: Job) -> None:
        """End a job: its blocks are free before the next step begins."""
        job.is_cancelled = True
        replica = self._where.get(job)
        if replica is not None:
            replica.thread.cancel(job)

    def count(self, replica: Replica, outputs: Sequence[Output], times: StepTimes) -> None:
        """Record the outputs and times of a replica's step."""
        replica.count_step(times)
        replica.stalled = ""
        for output in outputs:
            if output.sample is not None:
                replica.gave(output.job)
                left = replica.jobs.get(output.job)
                if left is not None and left.then is not None and output.finish_reason is None:
                    then, left.then = left.then, None
                    self.moves.begin(output.job, then, "prompt read", "the prompt is read")
        if len(self.all) > 1 and times.num_sequences and times.failure is None:
            self._count_speed(replica, times)
            self.heed()

    def heed(self) -> None:
        """Move answers away from units that are too hot, if the model has cooler units."""
        if self._power is None or self._power.hot is self._hot:
            return
        self._hot = self._power.hot
        for each in self.all:
            reason = self._power.hot.get(each.placement.unit)
            if reason is not None:
                self.leave(each, "hot", reason)

    def leave(self, replica: Replica, word: str, why: str) -> None:
        """Move all answers of a replica to other replicas, if there are any that may compute them.

        Args:
            replica: the replica.
            word: the reason, as a key of `Moves.counts`.
            why: the reason, for the answers' reports.
        """
        others = [each for each in self._candidates.usable() if each is not replica]
        if others:
            for job, left in list(replica.jobs.items()):
                if not left.is_stuck:
                    self.moves.begin(job, self._candidates.best(others, Asked(0, 1, left.num_tokens)), word, why)

    def drain(self, unit: Unit, why: str) -> int:
        """Stop giving a replica new answers, and move its present ones to other replicas. An empty `why` ends that.
        Returns the number of its answers, and raises the errors of `MovableTextModel.set_drained`.
        """
        replica = self.on(unit)
        if why and all(each.drained for each in self.all if each is not replica):
            raise UnsupportedError(
                f"no unit but '{unit.value}' computes new answers of model '{self._name}': name several in its "
                "parameter 'units', or unload it, which lets its answers end"
            )
        replica.drained = why
        if why:
            self.leave(replica, "drained", why)
        return len(replica.jobs)

    def refuse(self, why: str) -> None:
        """Fail the jobs that have not begun with an UnavailableError, whose message is `why`."""
        for each in self.all:
            each.thread.refuse(why)

    def stop(self) -> None:
        """End the threads after their running steps."""
        for each in self.all:
            each.thread.stop()

    def join(self) -> None:
        """Wait until the threads have ended. This blocks."""
        for each in self.all:
            each.thread.join()

    def _count_speed(self, replica: Replica, times: StepTimes) -> None:
        duration_ns = times.ended_ns - times.started_ns
        is_beside = any(each.jobs for each in self.all if each is not replica)
        replica.rates.record(times.num_read, times.num_answers, duration_ns, is_beside=is_beside)
        if times.num_read:
            return
        unit, speed = replica.placement.unit, replica.speed
        # Units that share cores are slower while both compute. `speed` must not report that as a slowdown, so the times
        # of steps beside another replica are recorded apart from the times of steps alone.
        has_changed = speed.record(2 * times.num_answers + is_beside, duration_ns, times.ended_ns)
        if speed.ratio:
            self._statistics.slowdowns[unit] = speed.ratio
        if not has_changed:
            return
        if not speed.is_slowed:
            self._statistics.slowed.discard(unit)
            _log.info("model '%s': '%s' is as fast as before", self._name, unit.value)
            return
        self._statistics.slowed.add(unit)
        why = f"steps on '{unit.value}' take {speed.ratio:.1f} times their best time since the load"
        _log.warning("model '%s': %s; answers move where others are faster", self._name, why)
        self._balance(replica, why)

    def _balance(self, replica: Replica, why: str) -> None:
        """Move answers from a replica to another one that is expected to finish them sooner."""
        able = self._candidates.usable()
        for job, left in list(replica.jobs.items()):
            if left.is_stuck or left.is_named:
                continue
            target = self._candidates.best(able, Asked(0, 1, left.num_tokens), without=job)
            if target is not replica:
                self.moves.begin(job, target, "slow", why)
