"""Schedules, executes and records steps. If the decoder can run ahead, each step begins before the last one ends.

If all sequences are greedy and there is no speculative decoding, a step needs only the tokens of the previous step. The
decoder then begins the step while it still computes these tokens, and meanwhile the host records the previous step and
passes its tokens on. If a sequence turns out to have ended, one token too many was computed for it, which is dropped.
That token's keys and values are written to blocks that are free by then. That is safe: the decoder computes steps in
order, so that the next owner of the blocks writes to them later.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.clock import Clock
from triune.core.decoder import DecoderExecutable
from triune.core.energy import Account, Work
from triune.core.errors import TriuneError, defect_of
from triune.core.pending_tokens import PendingTokens
from triune.engine.choosing import choose, take
from triune.engine.memory import Memory, MemoryRows
from triune.engine.plan import Plan
from triune.engine.sampling.sampler import FAILED, Sample
from triune.engine.scheduler import Scheduler
from triune.engine.sequence import FinishReason, Sequence
from triune.engine.source import Source, SourceReader
from triune.engine.speculation.speculator import Speculator

Results: TypeAlias = list[tuple[Sequence, Sample | None]]


@dataclass(eq=False, slots=True)
class _Running:
    """A step that the decoder computes, or will compute next.

    Attributes:
        plan: the plan of the step.
        began_ns: when it was planned.
        tokens: its most probable tokens, if its plan is greedy; None before it begins.
        logits: FP32 [rows, vocabulary], its logits, if its plan samples from them.
        work: the work that its energy is charged to; None if energy is not metered, or until the previous step has
            ended.
    """

    plan: Plan
    began_ns: int
    tokens: PendingTokens | None = None
    logits: NDArray[np.float32] | None = None
    work: Work | None = None


class Steps:
    """Computes the steps of a scheduler's sequences with one decoder. Used from one thread.

    Attributes:
        last_plan: the plan of the last step.
        failure: the error with which the last step failed for all sequences; None if it did not.
    """

    def __init__(
        self,
        decoder: DecoderExecutable,
        scheduler: Scheduler,
        speculator: Speculator,
        clock: Clock,
        before_writing: Callable[[], None],
        account: Account | None,
        reader: SourceReader | None = None,
    ) -> None:
        """Args:
        decoder: the decoder that computes the steps.
        scheduler: the scheduler that plans the steps.
        speculator: the object that guesses tokens (speculative decoding).
        clock: the clock that measures how long steps take.
        before_writing: the function that is called before a step begins to write to the cache.
        account: the account that is charged with the energy of the steps; None if energy is not metered.
        reader: the encoder that reads the sequences' sources, the texts that the decoder attends to; None if the model
            has no encoder.
        """
        self._decoder = decoder
        self._reader = reader
        self._unreadable: Results = []
        """Sequences that ended because the encoder could not read their sources, until `step` returns them."""
        self._scheduler = scheduler
        self._speculator = speculator
        self._clock = clock
        self._before_writing = before_writing
        self._account = account
        self._memory = MemoryRows()
        self._ahead: _Running | None = None
        """The step that was begun before the last one had ended; None if there is none."""
        self.last_plan = Plan(())
        self.failure: TriuneError | None = None

    def step(self) -> Results:
        """Compute one step. If the decoder can run ahead, the next step begins before this step's tokens are read.

        Returns:
            the sequences that got a token, each with its token, and the sequences that ended with an error, each with
            None. A sequence that got several tokens is listed once for each token, in order; its `finish_reason` is the
            one after the last token. The list is empty if the step only read parts of prompts, or if there is nothing
            to do.
        """
        running, self._ahead = self._ahead or self._new(self._scheduler.schedule()), None
        self.last_plan, self.failure = running.plan, None
        if not running.plan.pieces:
            self._memory.forget()
            return []
        try:
            if running.tokens is None:
                running.plan = self._scheduler.extend(running.plan, self._speculator.drafts(running.plan))
                self._bill(running)
                self._read_sources(running)
                if not running.plan.pieces:
                    return self._end_unread(running)
                self._begin(running)
            following = self._follow(running)
            samples = self._samples(running)
        except TriuneError as error:
            return self._fail(running, error)
        except BaseException as error:  # noqa: BLE001 - a defect or a panic fails the sequences of this step, and no other
            return self._fail(running, defect_of("a step of the model failed", error))
        return self._update(running, samples, following)

    def forget(self) -> None:
        """Call `drop` if no sequence is left. Call this after a sequence ended without a step."""
        if not (self._scheduler.num_waiting or self._scheduler.num_running):
            self.drop()

    def drop(self) -> None:
        """Drop the step that was begun ahead, and free the joined encoder outputs."""
        if self._ahead is not None:
            self._end(self._ahead)
        self._ahead = None
        self._memory.forget()

    def _new(self, plan: Plan) -> _Running:
        return _Running(plan, self._clock.now_ns())

    def _begin(self, running: _Running, before: PendingTokens | None = None) -> None:
        """Begin a step on the decoder. `before` are the tokens of the previous step, if that is still running."""
        self._before_writing()
        step = running.plan.step()
        if running.plan.pieces[0].sequence.memory:
            step = replace(step, memory=self._memory.of([piece.sequence for piece in running.plan.pieces]))
        if running.plan.takes_best:
            running.tokens = self._decoder.begin(step, before)
        else:
            running.logits = self._decoder.run(step)

    def _follow(self, running: _Running) -> _Running | None:
        """Begin the step after a running one, if it needs only the running step's tokens."""
        if not (self._decoder.can_run_ahead and running.plan.gives_one_token_each) or self._speculator.is_guessing:
            return None
        plan = self._scheduler.follow(running.plan)
        if plan is None or not plan.pieces or not plan.gives_one_token_each:
            return None
        if any(piece.num_encoded for piece in plan.pieces):
            # The encoder would run at the same time as the running step, so this step is planned again later.
            return None
        following = self._new(plan)
        try:
            self._begin(following, running.tokens)
        except TriuneError:
            # The step will be planned again. If the error belongs to this step, and not to the running one, it will
            # occur again.
            return None
        return following

    def _samples(self, running: _Running) -> list[list[Sample]]:
        """Wait for a step, and choose the next tokens of its sequences that have not ended."""
        if running.logits is not None:
            num_chosen = len(running.logits) - sum(len(piece.scored) for piece in running.plan.pieces)
            samples = choose(running.plan, running.logits[:num_chosen])
            _score(running.plan, running.logits[num_chosen:])
        else:
            assert running.tokens is not None
            tokens = running.tokens.read()
            if any(piece.sequence.finish_reason is not None for piece in running.plan.pieces):
                tokens = tokens[[piece.sequence.finish_reason is None for piece in running.plan.choosing]]
                running.plan = running.plan.going()
            samples = take(running.plan, tokens)
        self._end(running)
        return samples

    def _update(self, running: _Running, samples: list[list[Sample]], following: _Running | None) -> Results:
        """Record the results of a step, and continue with the step that was begun after it."""
        plan = self.last_plan = running.plan
        self._scheduler.update(plan, samples)
        self._speculator.observe(plan, samples, (self._clock.now_ns() - running.began_ns) / 1e9)
        if following is not None and following.plan.going().pieces:
            self._bill(following)
            self._ahead = following
        self.forget()
        given = [
            (piece.sequence, None if each.token == FAILED.token else each)
            for piece, chosen in zip(plan.choosing, samples, strict=True)
            for each in chosen
        ]
        return [*self._take_unreadable(), *given]

    def _read_sources(self, running: _Running) -> None:
        """Let the encoder read the sources of a step's sequences that were not read yet. (A source is the text from
        which the encoder makes what the decoder attends to.) A sequence whose source cannot be read ends, and leaves
        the step.
        """
        unread = [piece.sequence for piece in running.plan.pieces if piece.num_encoded]
        if not unread:
            return
        assert self._reader is not None
        # Answers to one prompt read the same text. So each text is read only once, and a text whose encoder output a
        # running sequence already has is not read at all.
        known: dict[Source, Memory | TriuneError] = {**self._scheduler.memories()}
        missing = list(dict.fromkeys(each.source for each in unread if each.source not in known))
        known |= zip(missing, self._reader.read(missing), strict=True)
        for sequence in unread:
            found = known[sequence.source]
            if isinstance(found, TriuneError):
                self._fail_one(sequence, found)
                self._unreadable.append((sequence, None))
            else:
                sequence.memory = found
        if self._unreadable:
            self.last_plan = running.plan = running.plan.going()

    def _end_unread(self, running: _Running) -> Results:
        """End a step whose sequences have all ended because the encoder could not read their sources."""
        self._end(running)
        self.forget()
        return self._take_unreadable()

    def _take_unreadable(self) -> Results:
        taken, self._unreadable = self._unreadable, []
        return taken

    def _fail_one(self, sequence: Sequence, error: TriuneError) -> None:
        sequence.error = error
        self._scheduler.cancel(sequence, FinishReason.ERROR)
        self._speculator.forget(sequence)

    def _bill(self, running: _Running) -> None:
        """From now on, charge energy to the sequences of a step that have not ended."""
        if self._account is not None:
            running.work = self._account.begin(self._clock.now_ns(), running.plan.going().shares)

    def _end(self, running: _Running) -> None:
        """Record the end of a step, up to which its energy is charged."""
        if running.work is not None:
            running.work.ended_ns = self._clock.now_ns()

    def _fail(self, running: _Running, error: TriuneError) -> Results:
        """End all sequences of a step with an error. The content of their blocks is unknown, so none is put into the
        prefix cache.
        """
        self._end(running)
        self.failure = error
        pieces = running.plan.going().pieces
        for piece in pieces:
            self._fail_one(piece.sequence, error)
        return [*self._take_unreadable(), *((piece.sequence, None) for piece in pieces)]


def _score(plan: Plan, logits: NDArray[np.float32]) -> None:
    """Record the probabilities of prompts' tokens. `logits` is FP32 [rows, vocabulary]: for each piece of the plan in
    order, a row for each of its `scored` tokens.
    """
    row = 0
    for piece in plan.pieces:
        places, scores = piece.scored, piece.sequence.scores
        if places and scores is not None:
            scores.read(places, logits[row : row + len(places)])
            row += len(places)
