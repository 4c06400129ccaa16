"""Adds guesses to steps, and learns from what became of them."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

from triune.engine.plan import Piece, Plan
from triune.engine.sampling.sampler import Sample
from triune.engine.sequence import Sequence
from triune.engine.speculation.pace import MAX_DRAFTS, Accuracy, StepCost
from triune.engine.speculation.proposer import Proposer


class Speculator:
    """Guesses tokens that follow those of a step.

    Guesses are tokens, not distributions. The tokens of an answer are drawn as without guesses, one after the other; a
    guess only saves the step in which its token would have been computed. This is rejection sampling (Leviathan et
    al., 2023, arXiv:2211.17192) for a proposal that has all its probability on one token: it is accepted with the
    probability that the model gives it, and else another token is drawn from the rest.

    Attributes:
        num_guessed: the guesses that were computed so far.
        num_right: those of them that became part of an answer.
    """

    def __init__(self, proposer: Proposer | None) -> None:
        """Args:
        proposer: what guesses; None guesses only what a constraint leaves no choice of.
        """
        self._proposer = proposer
        self._cost = StepCost()
        self._accuracies: dict[Sequence, Accuracy] = {}
        self.num_guessed = 0
        self.num_right = 0

    def drafts(self, plan: Plan) -> Mapping[Piece, Seq[int]]:
        """Guesses of the tokens that follow the pieces of a step."""
        choosing = plan.choosing
        least_rate = self._cost.least_rate(len(choosing), plan.num_tokens) if self._proposer is not None else 1.0
        found: dict[Piece, Seq[int]] = {}
        for piece in choosing:
            # A sequence that reads its prompt has waited for this step long enough.
            if piece.end - piece.begin > 1:
                continue
            drafts = self._forced(piece.sequence) or self._proposed(piece.sequence, least_rate)
            if drafts:
                found[piece] = drafts
        return found

    def observe(self, plan: Plan, samples: Seq[Seq[Sample]], seconds: float) -> None:
        """Learn from a step.

        Args:
            plan: the step.
            samples: the tokens chosen after each of `plan.choosing`.
            seconds: how long it took.
        """
        is_decoding = all(piece.has_logits and piece.end - piece.begin == 1 for piece in plan.pieces)
        if self._proposer is not None and is_decoding:
            self._cost.observe(plan.num_tokens, seconds)
        for piece, chosen in zip(plan.choosing, samples, strict=True):
            if piece.drafts:
                self.num_guessed += len(piece.drafts)
                # Where the last guess completes an answer, no token follows it.
                num_right = sum(each.token == draft for each, draft in zip(chosen, piece.drafts, strict=False))
                self.num_right += num_right
                accuracy = self._accuracies.get(piece.sequence)
                if accuracy is not None:
                    accuracy.observe(num_right, len(piece.drafts))
            if piece.sequence.finish_reason is not None:
                self.forget(piece.sequence)

    def forget(self, sequence: Sequence) -> None:
        """Free what is held for a sequence that has ended."""
        self._accuracies.pop(sequence, None)
        if self._proposer is not None:
            self._proposer.forget(sequence)

    def _forced(self, sequence: Sequence) -> Seq[int]:
        return sequence.matcher.forced()[:MAX_DRAFTS] if sequence.matcher is not None else ()

    def _proposed(self, sequence: Sequence, least_rate: float) -> Seq[int]:
        if self._proposer is None:
            return ()
        accuracy = self._accuracies.get(sequence)
        if accuracy is None:
            accuracy = self._accuracies[sequence] = Accuracy()
        count = accuracy.num_worth(least_rate)
        if not count:
            accuracy.rest()
            return ()
        drafts = self._proposer.propose(sequence, count)
        if drafts and sequence.matcher is not None:
            drafts = drafts[: sequence.matcher.num_fitting(drafts)]
        return drafts
