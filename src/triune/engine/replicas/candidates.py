"""Find which replicas of a model can take an answer now, and have the router choose one of them."""

from collections.abc import Mapping, Sequence
from typing import Final

from triune.core.clock import Clock
from triune.core.preference import UnitPreference
from triune.core.threads import in_thread
from triune.engine.job import Job
from triune.engine.replicas.replica import Replica
from triune.engine.replicas.router import Asked, Choice, choose

_INLINE_TOKENS: Final = 1024
"""Prompts of up to this length are looked up in the prefix caches on the event loop's thread, which takes less than 1
ms.
"""

_FIRST_EXPECTED: Final = 128
"""The number of tokens that an answer is expected to have, until an answer has ended."""

_WEIGHT: Final = 0.1
"""The weight of a new answer's length in the moving average of lengths."""


class Candidates:
    """Finds the replicas that can take an answer, and has the router choose among them. Used on the event loop's
    thread.
    """

    def __init__(self, replicas: Sequence[Replica], clock: Clock, preference: UnitPreference | None) -> None:
        """Args:
        replicas: all replicas of the model, at least one.
        clock: the clock of the steps.
        preference: excludes units because of the power mode or their temperature; None excludes none.
        """
        self._all = replicas
        self._clock = clock
        self._preference = preference
        self._expected = float(_FIRST_EXPECTED)

    def usable(self) -> list[Replica]:
        """The replicas that a new answer may go to, at least one.

        Units that `Replica.refusal` refuses are excluded. If none remains, all units are included that are not lost
        and do not hang, or else all units. Emulated units, units that the power mode avoids, and hot units are excluded
        too, unless no unit would remain.
        """
        now_ns = self._clock.now_ns()
        able = [each for each in self._all if not each.refusal(now_ns)]
        if not able:
            able = [each for each in self._all if each.thread.failure is None and not each.stalled] or [*self._all]
        able = [each for each in able if not each.is_emulated] or able
        if self._preference is None or len(able) == 1:
            return able
        units = self._preference.units({each.placement.unit for each in able}, None)
        return [each for each in able if each.placement.unit in units]

    def able_beside(self, source: Replica) -> list[Replica]:
        """The replicas that can continue an answer of `source`, which failed; perhaps there are none."""
        now_ns = self._clock.now_ns()
        return [each for each in self.usable() if each is not source and not each.refusal(now_ns)]

    async def choose(self, job: Job, num_answers: int) -> Choice:
        """Choose the replica for a job that has not begun; `Choice.place` is its position among all replicas.

        Args:
            job: the job.
            num_answers: the number of answers to its prompt.
        """
        cached = await self._cached(job)
        num_tokens = 0 if job.state is not None else job.num_prompt_tokens
        asked = Asked(num_tokens, num_answers, self.expected_of(job))
        # Do not await anything from here to the end of the choice: so the choice takes all jobs into account that were
        # placed before.
        return self._choice(self.usable(), asked, cached, can_part=num_answers == 1)

    def best(self, among: Sequence[Replica], asked: Asked, *, without: Job | None = None) -> Replica:
        """The replica of `among` with the least cost for an answer: the expected time until the answer ends, and the
        delay that it causes to the answers of other replicas on the same hardware.

        Args:
            among: at least one replica.
            asked: the work to place.
            without: a job to ignore in the load of its replica; None to ignore none.
        """
        return self._all[self._choice(among, asked, {}, without=without).place]

    def expected_of(self, job: Job) -> int:
        """The expected number of tokens of an answer: the moving average of the lengths of ended answers, limited by
        the answer's own `max_tokens`.
        """
        return max(1, min(job.ending.max_tokens, round(self._expected)))

    def record_length(self, num_tokens: int) -> None:
        """Count an answer that ended with `num_tokens` tokens."""
        self._expected += _WEIGHT * (num_tokens - self._expected)

    def _choice(
        self,
        among: Sequence[Replica],
        asked: Asked,
        cached: Mapping[Replica, int],
        *,
        can_part: bool = False,
        without: Job | None = None,
    ) -> Choice:
        jobs = (without,) if without is not None else ()
        outlooks = [each.outlook(cached.get(each, 0), jobs) for each in among]
        choice = choose(outlooks, asked, can_part=can_part)
        place, then = (self._all.index(among[each]) for each in (choice.place, choice.then))
        return Choice(place, then, choice.reason)

    async def _cached(self, job: Job) -> Mapping[Replica, int]:
        """The number of tokens of a job's prompt that each replica has in its prefix cache. Empty for a job whose
        blocks no cache has: one that brings its keys and values, or whose `salt` (the identity of an encoder's output)
        makes its blocks different.
        """
        if job.state is not None or job.salt:
            return {}

        def find() -> dict[Replica, int]:
            return {each: each.num_cached(job.prompt, job.adapter) for each in self._all}

        return find() if len(job.prompt) <= _INLINE_TOKENS else await in_thread(find)
