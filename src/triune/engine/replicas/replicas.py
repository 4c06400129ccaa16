"""The replicas of a text model: which of them computes which answer, and answers that move between them."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from triune.core.clock import Clock
from triune.core.errors import InvalidArgumentError, TriuneError, UnavailableError
from triune.core.power import Power
from triune.core.preference import UnitPreference
from triune.core.statistics import ModelStatistics
from triune.core.threads import NoThreadError, in_thread
from triune.core.units import Unit
from triune.engine.job import Job, Output, StepTimes
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.replicas.replica import Left, Received, Replica
from triune.engine.replicas.router import Asked, Choice, choose

_log = logging.getLogger(__name__)

_INLINE_TOKENS: Final = 1024
"""Prompts up to this length are looked up in the prefix caches on the event loop's thread, within 1 ms."""

_FIRST_EXPECTED: Final = 128
"""The tokens that an answer is expected to have before any has ended."""

_WEIGHT: Final = 0.1
"""What the length of an answer counts for against the mean of those before it."""


class Replicas:
    """Used on the event loop's thread.

    Attributes:
        moves: how many answers were moved, by the unit that they left, the one that they went to, and why: "asked",
            "prompt read", "hot", "slow", "drained" or "failed".
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
        """Start their threads.

        Args:
            replicas: at least one, the preferred one first; each on a unit of its own.
            receive: gets the outputs of all.
            clock: the clock of the steps.
            name: the model's name.
            statistics: the model's counters.
            power: the server's power mode; None for full power.

        Raises:
            NoThreadError: the system cannot start a thread; none is left running.
        """
        self.all = replicas
        self.moves: dict[tuple[Unit, Unit, str], int] = {}
        self._clock = clock
        self._name = name
        self._statistics = statistics
        self._power = power
        self._preference = UnitPreference(power, statistics) if power is not None else None
        self._hot: object = None
        self._where: dict[Job, Replica] = {}
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._expected = float(_FIRST_EXPECTED)
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
        """Which replica is to take a job that has not begun; `Choice.place` is its place in `all`.

        Args:
            job: the job.
            num_answers: the answers to its prompt.
            unit: the unit that its request names; None if it names none.

        Raises:
            InvalidArgumentError: the model does not run on the unit.
        """
        if unit is not None:
            place = self.all.index(self.on(unit))
            return Choice(place, place, f"the request names '{unit.value}'")
        if len(self.all) == 1:
            return Choice(0, 0, self.all[0].placement.reason)
        cached = await self._cached(job)
        num_tokens = 0 if job.state is not None else len(job.prompt)
        expected = self._expected_of(job)
        # What follows sees all that were placed before.
        return self._choice(self.usable(), Asked(num_tokens, num_answers, expected), cached, can_part=num_answers == 1)

    def usable(self) -> list[Replica]:
        """The replicas that a new answer may go to, at least one.

        A unit that failed, hangs or is drained is left out; then emulated ones, those that the power mode leaves out,
        and hot ones, as far as others are left.
        """
        now_ns = self._clock.now_ns()
        able = [each for each in self.all if not each.refusal(now_ns)]
        if not able:
            able = [each for each in self.all if each.thread.failure is None and not each.stalled] or [*self.all]
        able = [each for each in able if not each.is_emulated] or able
        if self._preference is None or len(able) == 1:
            return able
        units = self._preference.units({each.placement.unit for each in able}, None)
        return [each for each in able if each.placement.unit in units]

    def add(self, jobs: Sequence[Job], choice: Choice) -> None:
        """Have a replica compute the first of `jobs`, and the others, which follow it, after its first token."""
        replica, then = self.all[choice.place], self.all[choice.then]
        for place, job in enumerate(jobs):
            self._where[job] = replica
            left = Left(0 if place or job.state is not None else len(job.prompt), self._expected_of(job))
            left.then = then if then is not replica else None
            replica.add(job, left)
            job.placements.append(replace(replica.placement, reason=choice.reason))
        replica.thread.add(jobs[0])

    def forget(self, job: Job, num_tokens: int) -> None:
        """Count a job no more, which has ended with so many tokens."""
        replica = self._where.pop(job, None)
        if replica is not None:
            replica.forget(job)
            self._expected += _WEIGHT * (num_tokens - self._expected)

    def cancel(self, job: Job) -> None:
        """End a job: its blocks are free before the next step begins."""
        job.is_cancelled = True
        replica = self._where.get(job)
        if replica is not None:
            replica.thread.cancel(job)

    def count(self, replica: Replica, outputs: Sequence[Output], times: StepTimes) -> None:
        """Take what a step of a replica gave: how long it took, and which jobs go on."""
        replica.count_step(times)
        replica.stalled = ""
        for output in outputs:
            if output.sample is not None:
                replica.gave(output.job)
                left = replica.jobs.get(output.job)
                if left is not None and left.then is not None and output.finish_reason is None:
                    then, left.then = left.then, None
                    self._begin_move(output.job, then, "prompt read", "the prompt is read")
        if len(self.all) > 1 and times.num_sequences and times.failure is None:
            self._count_speed(replica, times)
            self.heed()

    def heed(self) -> None:
        """Have answers leave units that are too hot, where the model has others."""
        if self._power is None or self._power.hot is self._hot:
            return
        self._hot = self._power.hot
        for each in self.all:
            reason = self._power.hot.get(each.placement.unit)
            if reason is not None:
                self.leave(each, "hot", reason)

    def leave(self, replica: Replica, word: str, why: str) -> None:
        """Move all answers of a replica to others, as far as there are others that may take them.

        Args:
            replica: the replica.
            word: why, as `moves` counts it.
            why: why, for the answers' reports.
        """
        others = [each for each in self.usable() if each is not replica]
        if others:
            for job, left in list(replica.jobs.items()):
                if not left.is_stuck:
                    choice = self._choice(others, Asked(0, 1, left.num_tokens), {})
                    self._begin_move(job, self.all[choice.place], word, why)

    def drain(self, unit: Unit, why: str) -> None:
        """Give a replica no new answers, and move those that it has to others. An empty `why` ends that."""
        replica = self.on(unit)
        replica.drained = why
        if why:
            self.leave(replica, "drained", why)

    async def move(self, job: Job, target: Replica, word: str, why: str) -> None:
        """Have another replica go on with a job; nothing happens if it computes it already.

        Args:
            job: the job.
            target: the other replica.
            word: why, as `moves` counts it.
            why: why, for the answer's report.

        Raises:
            UnavailableError: the job has ended.
            TriuneError: its keys and values cannot be copied; the job goes on where it is.
        """
        source = self.of(job)
        if source is target:
            return
        state = await source.thread.export(job, form=target.core.cache_form)
        if job.is_cancelled or self._where.get(job) is not source:
            return
        job.state, job.before = state, job.sequence or job.before
        self._count_move(source, target, word)
        self._go_on(
            job,
            job,
            source,
            target,
            f"moved from '{source.placement.unit.value}' after {len(state.answer)} tokens: {why}",
        )

    def retried(self, job: Job, num_tokens: int, why: str) -> Job | None:
        """A job in the place of one whose replica failed, which another replica computes from its tokens, once.

        Args:
            job: the job, which has ended there, or whose step hangs.
            num_tokens: the tokens of its answer that the client has or will have.
            why: what failed.

        Returns:
            None if it was retried before, no other replica can take it, or the failure took a token along.
        """
        source, now_ns = self._where.get(job), self._clock.now_ns()
        targets = [each for each in self.usable() if each is not source and not each.refusal(now_ns)]
        if source is None or job.is_retried or not targets:
            return None
        state = job.state
        if state is not None:
            state = replace(state, cached=KeysAndValues())
        elif job.sequence is not None:
            sequence = job.sequence
            if sequence.num_answered != num_tokens:
                return None
            state = _state_of(job, num_tokens)
        other = Job(
            job.prompt,
            job.sampling,
            job.ending,
            job.priority,
            job.index,
            job.matcher.fork() if job.matcher is not None else None,
            job.adapter,
            salt=job.salt,
            state=state,
            before=job.sequence or job.before,
            followers=job.followers,
            is_retried=True,
            placements=job.placements,
        )
        job.followers = ()
        left = source.jobs.get(job)
        choice = self._choice(targets, Asked(len(job.prompt), 1, left.num_tokens if left else 1), {})
        target = self.all[choice.place]
        self._count_move(source, target, "failed")
        self._go_on(
            job,
            other,
            source,
            target,
            f"begun again after {num_tokens} tokens, since the unit '{source.placement.unit.value}' failed: {why}",
        )
        # A step that hangs may end at some time.
        job.is_cancelled = True
        source.thread.cancel(job)
        return other

    def refuse(self, why: str) -> None:
        """Fail the jobs that have not begun."""
        for each in self.all:
            each.thread.refuse(why)

    def stop(self) -> None:
        """End the threads after their running steps."""
        for each in self.all:
            each.thread.stop()

    def join(self) -> None:
        """Wait for the ends of the threads. Blocks."""
        for each in self.all:
            each.thread.join()

    def _go_on(self, job: Job, other: Job, source: Replica, target: Replica, why: str) -> None:
        """Hand what goes on of `job`, as `other`, from one replica to another."""
        followers = other.followers
        for each, following in ((job, other), *((each, each) for each in followers)):
            left = source.forget(each) or Left(0, 1)
            if following is not each or each.state is None:
                # It is computed from its tokens.
                left.num_prompt_tokens = len(each.prompt)
            self._where.pop(each, None)
            self._where[following] = target
            target.add(following, left)
            following.placements.append(replace(target.placement, reason=why))
        target.thread.add(other)

    def _begin_move(self, job: Job, target: Replica, word: str, why: str) -> None:
        """Move a job in a task of its own."""
        if job in self._tasks:
            return

        async def move() -> None:
            source = self._where.get(job)
            try:
                await self.move(job, target, word, why)
            except UnavailableError:
                # It ended first.
                pass
            except Exception as error:  # noqa: BLE001 - it stays where it is
                left = source.jobs.get(job) if source is not None else None
                if left is not None:
                    left.is_stuck = True
                shown = error if isinstance(error, TriuneError) else f"{type(error).__name__}: {error}"
                _log.warning("model '%s': an answer stays on its unit: %s", self._name, shown)
            finally:
                del self._tasks[job]

        self._tasks[job] = asyncio.ensure_future(move())

    def _count_move(self, source: Replica, target: Replica, word: str) -> None:
        key = (source.placement.unit, target.placement.unit, word)
        self.moves[key] = self.moves.get(key, 0) + 1

    def _count_speed(self, replica: Replica, times: StepTimes) -> None:
        duration_ns = times.ended_ns - times.started_ns
        is_beside = any(each.jobs for each in self.all if each is not replica)
        replica.rates.record(times.num_read, times.num_answers, duration_ns, is_beside=is_beside)
        if times.num_read:
            return
        unit, speed = replica.placement.unit, replica.speed
        # Units that share cores are slower beside each other, which is not what the watch is for.
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
        """Move those answers of a replica that another one is expected to finish sooner."""
        able = self.usable()
        for job, left in list(replica.jobs.items()):
            if left.is_stuck:
                continue
            choice = self._choice(able, Asked(0, 1, left.num_tokens), {}, without=job)
            if self.all[choice.place] is not replica:
                self._begin_move(job, self.all[choice.place], "slow", why)

    def _choice(
        self,
        among: Sequence[Replica],
        asked: Asked,
        cached: dict[Replica, int],
        *,
        can_part: bool = False,
        without: Job | None = None,
    ) -> Choice:
        jobs = (without,) if without is not None else ()
        outlooks = [each.outlook(cached.get(each, 0), jobs) for each in among]
        choice = choose(outlooks, asked, can_part=can_part)
        place, then = (self.all.index(among[each]) for each in (choice.place, choice.then))
        return Choice(place, then, choice.reason)

    async def _cached(self, job: Job) -> dict[Replica, int]:
        """How many tokens of a prompt each replica has in its prefix cache."""
        if job.state is not None or job.salt:
            return {}

        def find() -> dict[Replica, int]:
            return {each: each.num_cached(job.prompt, job.adapter) for each in self.all}

        return find() if len(job.prompt) <= _INLINE_TOKENS else await in_thread(find)

    def _expected_of(self, job: Job) -> int:
        return max(1, min(job.ending.max_tokens, round(self._expected)))


def _state_of(job: Job, num_tokens: int) -> SequenceState:
    """A job's state from its tokens, without keys and values."""
    sequence = job.sequence
    assert sequence is not None
    begin = len(job.prompt)
    return SequenceState(
        job.prompt,
        sequence.tokens[begin : begin + num_tokens],
        job.sampling,
        sequence.sampling.random_state,
        job.ending,
        job.priority,
        job.adapter,
    )
