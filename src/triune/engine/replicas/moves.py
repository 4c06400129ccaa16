"""Moves answers to another replica: with their keys and values, or from their tokens if their replica failed."""

import asyncio
import logging
from dataclasses import replace

from triune.core.errors import TriuneError, UnavailableError
from triune.core.units import Unit
from triune.engine.job import Job
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.replicas.candidates import Candidates
from triune.engine.replicas.replica import Left, Replica
from triune.engine.replicas.router import Asked

_log = logging.getLogger(__name__)


class Moves:
    """Moves answers between replicas. Use it on the event loop's thread only.

    Attributes:
        counts: the number of moved answers, by (from unit, to unit, reason). Reasons are "asked", "prompt read", "hot",
            "slow", "drained" or "failed".
    """

    def __init__(self, name: str, where: dict[Job, Replica], candidates: Candidates) -> None:
        """Args:
        name: the model's name.
        where: the replica that computes each job. A move changes this mapping.
        candidates: chooses the replica that continues an answer whose replica failed.
        """
        self.counts: dict[tuple[Unit, Unit, str], int] = {}
        self._name = name
        self._where = where
        self._candidates = candidates
        self._tasks: dict[Job, asyncio.Task[None]] = {}

    def begin(self, job: Job, target: Replica, word: str, why: str) -> None:
        """Begin to move a job in a new task, unless it is being moved already. If that fails, the job stays on its
        replica.

        The arguments are those of `move`.
        """
        if job in self._tasks:
            return

        async def move() -> None:
            source = self._where.get(job)
            try:
                await self.move(job, target, word, why)
            except UnavailableError:
                # The job ended before it could be moved: there is nothing to do.
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

    async def move(self, job: Job, target: Replica, word: str, why: str) -> None:
        """Let another replica continue a job; does nothing if that replica computes the job already.

        Args:
            job: the job.
            target: the other replica.
            word: the reason, as a key of `counts`.
            why: the reason, for the answer's report.

        Raises:
            UnavailableError: the job has ended.
            TriuneError: the job's keys and values cannot be copied. The job then stays on its replica.
        """
        source = self._where.get(job)
        if source is None:
            raise UnavailableError("the answer has ended")
        if source is target:
            return
        state = await source.thread.export(job, form=target.core.cache_form)
        if job.is_cancelled or self._where.get(job) is not source:
            return
        job.state, job.before = state, job.sequence or job.before
        self._count(source, target, word)
        reason = f"moved from '{source.placement.unit.value}' after {len(state.answer)} tokens: {why}"
        self._go_on(job, job, source, target, reason)

    def retried(self, job: Job, num_tokens: int, why: str) -> Job | None:
        """Retry a job whose replica failed: another replica continues it from its tokens. A job is retried only once.

        Args:
            job: the job, which has ended on the failed replica, or whose step hangs.
            num_tokens: the tokens of its answer that the client has or will have.
            why: what failed.

        Returns:
            the new job; None if the job was retried before, no other replica can take it, or a token was lost in the
                failure.
        """
        source = self._where.get(job)
        if source is None or job.is_retried:
            return None
        targets = self._candidates.able_beside(source)
        if not targets:
            return None
        state = job.state
        if state is not None:
            state = replace(state, cached=KeysAndValues())
        elif job.sequence is not None:
            if job.sequence.num_answered != num_tokens:
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
            source=job.source,
            state=state,
            before=job.sequence or job.before,
            place=job.place,
            followers=job.followers,
            is_retried=True,
            placements=job.placements,
        )
        job.followers = ()
        left = source.jobs.get(job)
        target = self._candidates.best(targets, Asked(job.num_prompt_tokens, 1, left.num_tokens if left else 1))
        self._count(source, target, "failed")
        reason = f"begun again after {num_tokens} tokens, since the unit '{source.placement.unit.value}' failed: {why}"
        self._go_on(job, other, source, target, reason)
        # The job is cancelled on the failed replica: a step that hangs may still end later, and the job must not go on
        # there.
        job.is_cancelled = True
        source.thread.cancel(job)
        return other

    def _go_on(self, job: Job, other: Job, source: Replica, target: Replica, why: str) -> None:
        """Move `job` from one replica to another, where it continues as `other`."""
        followers = other.followers
        for each, following in ((job, other), *((each, each) for each in followers)):
            left = source.forget(each) or Left(0, 1)
            if following is not each or each.state is None:
                # The job's keys and values do not move with it, so the new replica has to read its prompt again.
                left.num_prompt_tokens = each.num_prompt_tokens
            self._where.pop(each, None)
            self._where[following] = target
            target.add(following, left)
            following.placements.append(replace(target.placement, reason=why))
        target.thread.add(other)

    def _count(self, source: Replica, target: Replica, word: str) -> None:
        key = (source.placement.unit, target.placement.unit, word)
        self.counts[key] = self.counts.get(key, 0) + 1


def _state_of(job: Job, num_tokens: int) -> SequenceState:
    """The state of a job after `num_tokens` tokens of its answer, made from the tokens, without keys and values."""
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
        source=job.source,
    )
