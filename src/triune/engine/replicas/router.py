"""Decides which replica of a model computes an answer. The functions depend on their arguments only, and have no side
effects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from triune.core.units import Unit
from triune.engine.replicas.rates import Rates

_NS: Final = 1e9

_PAYS: Final = 0.9
"""Reading a prompt on one unit and decoding on another must take at most this fraction of the time on the best single
unit. The times are estimates, and a move costs both units time that the estimates leave out.
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the router knows of a replica: its speed, and the work that it has.

    Attributes:
        unit: its unit.
        rates: how long its steps take.
        num_prompt_tokens: the number of prompt tokens that it still has to compute.
        num_answers: the number of answers that it computes or that wait for it.
        num_left: the number of tokens that these answers are expected to get, in total.
        max_answers: the most answers that it computes at a time; others wait.
        num_cached: tokens of the new prompt that are in its prefix cache.
    """

    unit: Unit
    rates: Rates
    num_prompt_tokens: int = 0
    num_answers: int = 0
    num_left: int = 0
    max_answers: int = 64
    num_cached: int = 0

    def reading_ns(self, num_tokens: int, *, is_beside: bool) -> float:
        """The time in ns from now until a prompt of `num_tokens` tokens is read, after the prompts that wait before
        it. `is_beside` says whether another replica computes meanwhile.
        """
        missing = max(num_tokens - self.num_cached, 1) if num_tokens else 0
        wait_ns = 0.0
        if self.num_answers >= self.max_answers:
            # The replica is full: a new answer begins when enough of the earlier answers have ended.
            first = 1 + self.num_answers - self.max_answers
            each_ns = self.num_left / self.num_answers * self.rates.answer_ns(self.max_answers, is_beside=is_beside)
            wait_ns = each_ns * first / self.max_answers
        return wait_ns + self.rates.prompt_ns(self.num_prompt_tokens + missing, is_beside=is_beside)

    def answering_ns(self, num_answers: int, num_tokens: int, *, is_beside: bool) -> float:
        """The time in ns for `num_answers` more answers of `num_tokens` tokens each, if the replica computes them
        together with its present answers. `is_beside` says whether another replica computes meanwhile.
        """
        together = min(self.num_answers + num_answers, self.max_answers)
        return num_tokens * self.rates.answer_ns(together, is_beside=is_beside)


@dataclass(frozen=True, slots=True)
class Asked:
    """The work that the router places.

    Attributes:
        num_tokens: the number of the prompt's tokens; 0 if its keys and values are given.
        num_answers: the number of answers to the prompt.
        num_expected: the expected number of tokens of each answer.
    """

    num_tokens: int
    num_answers: int = 1
    num_expected: int = 128


@dataclass(frozen=True, slots=True)
class Choice:
    """The router's choice for an answer.

    Attributes:
        place: the index of the replica that reads the prompt.
        then: the index of the replica that decodes after the first token; often the same.
        reason: the reason, as a sentence without its full stop.
        is_named: whether the request names the unit.
    """

    place: int
    then: int
    reason: str
    is_named: bool = False


def choose(outlooks: Sequence[Outlook], asked: Asked, *, can_part: bool = False) -> Choice:
    """Choose the replica with the least cost: the expected time until it finishes the job, plus the delay of the
    answers on other units.

    Units may share cores and memory. So an idle unit is used only if that saves more time than it costs the answers on
    the other units, by their measured speeds alone and together.

    Args:
        outlooks: the replicas, at least one.
        asked: the job to place.
        can_part: whether one unit may compute the prompt and another unit the answer.
    """
    finish = [_finish_ns(outlooks, place, asked) for place in range(len(outlooks))]
    delays = [_delay_ns(outlooks, place, each) for place, each in enumerate(finish)]
    costs = [one + other for one, other in zip(finish, delays, strict=True)]
    best = min(range(len(outlooks)), key=costs.__getitem__)
    if can_part and (parted := _parted(outlooks, asked, costs[best])) is not None:
        return parted
    return Choice(best, best, _reason(outlooks, best, finish, delays))


def _is_beside(outlooks: Sequence[Outlook], place: int) -> bool:
    return any(each.num_answers for other, each in enumerate(outlooks) if other != place)


def _finish_ns(outlooks: Sequence[Outlook], place: int, asked: Asked) -> float:
    one, is_beside = outlooks[place], _is_beside(outlooks, place)
    return one.reading_ns(asked.num_tokens, is_beside=is_beside) + one.answering_ns(
        asked.num_answers, asked.num_expected, is_beside=is_beside
    )


def _delay_ns(outlooks: Sequence[Outlook], place: int, finish_ns: float) -> float:
    """How much longer the answers of another replica take, in ns for all of them together, if the replica
    `outlooks[place]` computes at the same time for `finish_ns`. It is 0 unless exactly one other replica computes.
    """
    busy = [other for other, each in enumerate(outlooks) if each.num_answers]
    if len(busy) != 1 or busy[0] == place:
        return 0.0
    other = outlooks[busy[0]]
    count = min(other.num_answers, other.max_answers)
    alone_ns = other.rates.answer_ns(count, is_beside=False)
    beside_ns = other.rates.answer_ns(count, is_beside=True)
    if not 0 < alone_ns < beside_ns:
        return 0.0
    left_ns = other.num_left / other.num_answers * beside_ns
    return min(finish_ns, left_ns) * (1 - alone_ns / beside_ns) * other.num_answers


def _parted(outlooks: Sequence[Outlook], asked: Asked, best_ns: float) -> Choice | None:
    """Choose one unit to read the prompt and another to decode. None if no such pair takes less than the part _PAYS of
    `best_ns`, the time on the best single unit.
    """
    found: Choice | None = None
    limit_ns = _PAYS * best_ns
    for place, one in enumerate(outlooks):
        for then, other in enumerate(outlooks):
            if place == then or one.num_answers or not asked.num_tokens:
                continue
            is_beside = bool(other.num_answers) or _is_beside(outlooks, place)
            reading_ns = one.reading_ns(asked.num_tokens, is_beside=is_beside)
            moving_ns = asked.num_tokens * (one.rates.out_ns + other.rates.in_ns)
            answering_ns = other.answering_ns(asked.num_answers, asked.num_expected, is_beside=is_beside)
            # The keys and values of a moved answer are written between the steps of its new replica, whose other
            # answers wait for that.
            delay_ns = other.num_answers * asked.num_tokens * other.rates.in_ns
            delay_ns += _delay_ns(outlooks, place, reading_ns)
            total_ns = reading_ns + moving_ns + answering_ns + delay_ns
            if total_ns < limit_ns:
                limit_ns = total_ns
                found = Choice(
                    place,
                    then,
                    f"'{one.unit.value}' reads the prompt and '{other.unit.value}' goes on: that was expected to take "
                    f"{total_ns / _NS:.3g} s, and {best_ns / _NS:.3g} s on one unit",
                )
    return found


def _reason(outlooks: Sequence[Outlook], best: int, finish: Sequence[float], delays: Sequence[float]) -> str:
    chosen = outlooks[best]
    words = f"'{chosen.unit.value}' was expected to finish it first, in {finish[best] / _NS:.3g} s"
    if chosen.num_cached:
        words += f" with {chosen.num_cached} tokens of the prompt in its cache"
    others = [place for place in range(len(outlooks)) if place != best]
    if not others:
        return f"'{chosen.unit.value}' is the only unit that can take it now"
    told: list[str] = []
    for place in others:
        each = f"'{outlooks[place].unit.value}' in {finish[place] / _NS:.3g} s"
        if delays[place] > 0:
            each += f", which delays answers of another unit by {delays[place] / _NS:.3g} s"
        told.append(each)
    if finish[best] > min(finish):
        words = f"'{chosen.unit.value}' was expected to finish it in {finish[best] / _NS:.3g} s"
    return f"{words}; {'; '.join(told)}"
