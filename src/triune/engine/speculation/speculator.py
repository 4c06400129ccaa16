"""Guess the next tokens of sequences (speculative decoding), add the guesses to steps, and learn from how many were
right.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

from triune.core.clock import Clock
from triune.engine.plan import Piece, Plan
from triune.engine.sampling.sampler import Sample
from triune.engine.sequence import Sequence
from triune.engine.speculation.pace import MAX_DRAFTS, Accuracy, StepCost
from triune.engine.speculation.proposer import Proposer


class Speculator:
    """Guesses the tokens that follow those of a step, which the step then checks (speculative decoding).

    Guesses are tokens, not distributions. The tokens of an answer are drawn as without guesses, one after the other, by
    the same random numbers; a guess only saves the step in which its token would have been computed. So answers are the
    same, however guesses are made. If the guesses do not depend on the random numbers, this is rejection sampling
    (Leviathan et al., 2023, arXiv:2211.17192) for a proposal with probability 1 on one token: the token is accepted
    with its probability in the model, and otherwise another token is drawn from the remaining distribution.

    Attributes:
        num_guessed: the guesses that were computed so far.
        num_right: the guesses that became part of an answer.
        num_checked: the guesses that were compared with an answer's token. Guesses after a wrong one are not compared.
    """

    def __init__(self, proposer: Proposer | None, clock: Clock) -> None:
        """Args:
        proposer: the source of guesses; with None only tokens that a constraint forces are guessed.
        clock: the clock that measures how long guesses take.
        """
        self._proposer = proposer
        self._clock = clock
        self._seconds = 0.0
        self._cost = StepCost()
        self._accuracies: dict[Sequence, Accuracy] = {}
        self.num_guessed = 0
        self.num_right = 0
        self.num_checked = 0

    @property
    def is_guessing(self) -> bool:
        """Whether a proposer makes guesses. Then the tokens of a step must be known before the next step is planned."""
        return self._proposer is not None

    def drafts(self, plan: Plan) -> Mapping[Piece, Seq[int]]:
        """Guess the tokens that follow the pieces of a step. Returns the guesses by piece; pieces without guesses are
        left out.
        """
        choosing = plan.choosing
        least_rate = self._cost.least_rate(len(choosing), plan.num_tokens) if self._proposer is not None else 1.0
        found: dict[Piece, Seq[int]] = {}
        wanted: dict[Sequence, int] = {}
        for piece in choosing:
            # A sequence that reads its prompt gets no guesses, which would make its first token later.
            if piece.end - piece.begin > 1:
                continue
            if drafts := self._forced(piece.sequence):
                found[piece] = drafts
            elif count := self._num_worth(piece.sequence, least_rate):
                wanted[piece.sequence] = count
        self._seconds = 0.0
        if self._proposer is None or not choosing:
            return found
        started_ns = self._clock.now_ns()
        proposed: Mapping[Sequence, Seq[int]] = self._proposer.propose(wanted) if wanted else {}
        self._seconds = (self._clock.now_ns() - started_ns) / 1e9
        self._cost.observe_guesses(sum(map(len, proposed.values())), self._seconds)
        for piece in choosing:
            if drafts := _fitting(piece.sequence, proposed.get(piece.sequence, ())):
                found[piece] = drafts
        return found

    def observe(self, plan: Plan, samples: Seq[Seq[Sample]], seconds: float) -> None:
        """Learn from a step.

        Args:
            plan: the step.
            samples: the tokens chosen after each of `plan.choosing`.
            seconds: how long the step took, including the time to make its guesses.
        """
        is_decoding = all(piece.has_logits and piece.end - piece.begin == 1 for piece in plan.pieces)
        if self._proposer is not None and is_decoding:
            self._cost.observe(plan.num_tokens, seconds - self._seconds)
        for piece, chosen in zip(plan.choosing, samples, strict=True):
            if piece.drafts:
                self.num_guessed += len(piece.drafts)
                # `chosen` has the right guesses and usually one token more. If a guess completes the answer, no token
                # follows it.
                num_right = sum(each.token == draft for each, draft in zip(chosen, piece.drafts, strict=False))
                self.num_right += num_right
                self.num_checked += min(num_right + 1, len(piece.drafts), len(chosen))
                accuracy = self._accuracies.get(piece.sequence)
                if accuracy is not None:
                    accuracy.observe(num_right, len(piece.drafts))
            if piece.sequence.finish_reason is not None:
                self.forget(piece.sequence)

    def forget(self, sequence: Sequence) -> None:
        """Free the state of a sequence that has ended."""
        self._accuracies.pop(sequence, None)
        if self._proposer is not None:
            self._proposer.forget(sequence)

    def reset(self) -> None:
        """Free the state of all sequences. What was learned about the cost of steps, and the counters, are kept."""
        self._accuracies.clear()
        if self._proposer is not None:
            self._proposer.reset()

    def check(self) -> None:
        """Check the invariants of the proposer. Raises InternalError naming a violated one."""
        if self._proposer is not None:
            self._proposer.check()

    def _forced(self, sequence: Sequence) -> Seq[int]:
        return sequence.matcher.forced()[:MAX_DRAFTS] if sequence.matcher is not None else ()

    def _num_worth(self, sequence: Sequence, least_rate: float) -> int:
        """How many tokens are worth guessing for a sequence: as many as `Accuracy.num_worth` says for `least_rate`,
        but not more than the answer may still have.
        """
        left = sequence.ending.max_tokens - sequence.num_answered - 1
        if self._proposer is None or left < 1:
            return 0
        accuracy = self._accuracies.get(sequence)
        if accuracy is None:
            accuracy = self._accuracies[sequence] = Accuracy()
        count = accuracy.num_worth(least_rate)
        if not count:
            accuracy.rest()
        return min(count, left)


def _fitting(sequence: Sequence, drafts: Seq[int]) -> Seq[int]:
    """The guesses before the first one that the constraint does not allow."""
    return drafts[: sequence.matcher.num_fitting(drafts)] if drafts and sequence.matcher is not None else drafts
