"""Decide which running sequences are preempted for waiting ones. Otherwise a very long answer would run until its end.

A sequence runs for at least one turn. The turn is short if a waiting sequence has not begun yet. The keys and values of
a preempted sequence stay in the prefix cache while there is room; otherwise they must be computed again, and so a long
sequence has a longer turn.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from typing import Final, NamedTuple

from triune.engine.sequence import Sequence

FIRST_TURN_TOKENS: Final = 8
"""The tokens of a turn while a request waits that has no token yet. A turn is the tokens that a sequence may compute
before it can be preempted.
"""

TURN_TOKENS: Final = 256
"""The smallest number of tokens of a turn while only sequences wait that have had a turn before. The turn of a long
sequence is half of its tokens, if that is more.
"""


class Turn(NamedTuple):
    """A preemption of running sequences for a waiting one.

    Attributes:
        begins: the sequence that will begin.
        yields: the sequences that are preempted, so that their blocks are free for it.
    """

    begins: Sequence
    yields: Seq[Sequence]


def find_turns(
    waiting: Iterable[Sequence],
    running: Iterable[Sequence],
    level: Callable[[Sequence], int],
    has_room: Callable[[Sequence, Seq[Sequence], Seq[Sequence]], bool],
) -> list[Turn]:
    """Decide which running sequences are preempted for which waiting ones.

    Waiting sequences without a token come first. All answers to a prompt but its first are preempted before others, and
    nothing is preempted for them, so that a request for many answers gets no advantage.

    Args:
        waiting: the sequences that wait, the most urgent first.
        running: the sequences that have blocks.
        level: the priority that a waiting sequence has by now (`Queues.level`).
        has_room: whether a sequence (the first argument) can begin after the sequences of the second argument have
            begun and those of the third have given up their blocks.
    """
    turns: list[Turn] = []
    ripe = sorted(
        (each for each in running if num_of_turn(each) >= (1 if each.is_follower else FIRST_TURN_TOKENS)),
        key=lambda each: (each.is_follower, num_of_turn(each)),
    )
    if not ripe:
        return turns
    able = [each for each in waiting if not each.is_follower and not each.num_awaited]
    for is_first in (True, False):
        for sequence in (each for each in able if (each.started_ns is None) is is_first):
            begun = [turn.begins for turn in turns]
            gone = [each for turn in turns for each in turn.yields]
            yields = list[Sequence]()
            over = [each for each in ripe if is_over(each, sequence, level(sequence))]
            while over and not has_room(sequence, begun, [*gone, *yields]):
                yields.append(over.pop())
            if not yields or not has_room(sequence, begun, [*gone, *yields]):
                break
            turns.append(Turn(sequence, yields))
            ripe = [each for each in ripe if each not in yields]
    return turns


def is_over(running: Sequence, waiting: Sequence, level: int) -> bool:
    """Whether the turn of `running` is over because `waiting` waits, whose priority has become `level` by waiting."""
    if running.priority < level:
        return False
    if waiting.started_ns is None:
        return num_of_turn(running) >= (1 if running.is_follower else FIRST_TURN_TOKENS)
    return num_of_turn(running) >= max(TURN_TOKENS, len(running.tokens) // 2)


def num_of_turn(sequence: Sequence) -> int:
    """The number of tokens that a running sequence has got since its present turn began."""
    return len(sequence.tokens) - sequence.num_at_turn
