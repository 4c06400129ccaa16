"""Data that the event loop and the engine's thread exchange: answers to compute, and the results of each step."""

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from triune.core.errors import TriuneError
from triune.engine.generation import Placement
from triune.engine.memory import Memory
from triune.engine.moving.state import SequenceState
from triune.engine.rules import TokenRules
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import Sample
from triune.engine.sequence import Ending, FinishReason, Sequence
from triune.engine.source import Source
from triune.engine.structured.matcher import Matcher


@dataclass(eq=False, slots=True)
class Job:
    """One answer that the engine's thread computes.

    Attributes:
        prompt: token ids.
        sampling: how tokens are chosen.
        ending: when the answer ends.
        priority: 0 is the most urgent.
        index: the index among several answers to one prompt.
        matcher: the constraint on the answer; None if there is none.
        adapter: the name of the LoRA adapter; None for the model without an adapter.
        rules: rules that change or choose the next token by its logits; None if there are none.
        memory: the encoder output that it reads; None if the decoder reads none, or if `source` is given.
        salt: a hash that identifies the memory.
        source: the tokens that the engine's encoder reads for it; empty if the engine has none.
        state: the state at which the answer goes on, if another engine began it; dropped when it has begun here. The
            parameters in the state then apply instead of those above.
        before: the sequence as another unit of the same model computed it; None if none did.
        place: the index of its prompt among the prompts of one request.
        num_prompt_logprobs: see `EngineCore.add`.
        followers: other answers to the same prompt. They begin when this one has its first token, so that they find the
            prompt's blocks in the prefix cache.
        is_cancelled: whether the event loop has cancelled the job, which then does not begin.
        is_retried: whether another unit has failed to compute it.
        placements: the units on which it was computed, in order. Used on the event loop's thread.
        sequence: the engine's sequence of this job; None before it begins.
    """

    prompt: Tokens[int]
    sampling: SamplingParameters
    ending: Ending
    priority: int = 0
    index: int = 0
    matcher: Matcher | None = None
    adapter: str | None = None
    rules: TokenRules | None = None
    memory: Memory | None = None
    salt: bytes = b""
    source: Source = ()
    state: SequenceState | None = None
    before: Sequence | None = None
    place: int = 0
    num_prompt_logprobs: int | None = None
    followers: tuple["Job", ...] = ()
    is_cancelled: bool = False
    is_retried: bool = False
    placements: list[Placement] = field(default_factory=list[Placement])
    sequence: Sequence | None = field(default=None, init=False)

    @property
    def num_prompt_tokens(self) -> int:
        """The number of tokens of the client's prompt. If there is an encoder, it reads the prompt."""
        return len(self.source or self.prompt)


class Output(NamedTuple):
    """The result of a step for one job.

    Attributes:
        job: the job.
        sample: the token; None if the job failed.
        finish_reason: why the job ended with this step; None if it goes on.
        error: why the job failed; else None.
        can_retry: whether the job failed because of the unit and not because of itself, so that another unit may
            compute it.
    """

    job: Job
    sample: Sample | None
    finish_reason: FinishReason | None
    error: TriuneError | None = None
    can_retry: bool = False


class StepTimes(NamedTuple):
    """The times of a step, and the amounts that it computed.

    Attributes:
        started_ns: when it began, on the engine's clock.
        ended_ns: when it ended.
        num_sequences: the number of sequences that it computed.
        num_read: the number of prompt tokens that it computed.
        num_answers: the number of sequences for which it computed only the next token.
        failure: why the whole step failed; None if it did not.
    """

    started_ns: int
    ended_ns: int
    num_sequences: int
    num_read: int = 0
    num_answers: int = 0
    failure: TriuneError | None = None


Receive: TypeAlias = Callable[[list[Output], StepTimes], None]
"""Called on the event loop's thread with the outputs and the times of each step, and with the outputs of jobs that fail
without a step.
"""
