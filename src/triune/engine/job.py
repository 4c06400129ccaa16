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
        rules: what the logits decide about the next token; None if nothing.
        memory: what it reads of an encoder; None if the decoder reads none, or `source` is given.
        salt: names the memory.
        source: the tokens that the engine's encoder reads for it; empty if the engine has none.
        state: where the answer goes on, if another engine began it; forgotten when it has begun here. Its parameters
            then count, not those above.
        before: what another unit of the same model computed of it; None if none did.
        place: which of the prompts of one request this answers.
        num_prompt_logprobs: see `EngineCore.add`.
        followers: other answers to the same prompt. They begin when this one has its first token, so that they find the
            prompt's blocks in the prefix cache.
        is_cancelled: set by the event loop. The job does not begin then.
        is_retried: whether another unit failed at it.
        placements: where it was computed, in that order. Used on the event loop's thread.
        sequence: what the engine computes; None before it begins.
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
        """The tokens of the client's prompt, which an encoder reads if there is one."""
        return len(self.source or self.prompt)


class Output(NamedTuple):
    """What a step gave to one job.

    Attributes:
        job: the job.
        sample: the token; None if the job failed.
        finish_reason: why the job ended with this step; None if it goes on.
        error: why the job failed; else None.
        can_retry: whether the unit's failure is the reason, and not the job, so that another unit may compute it.
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
        num_sequences: the sequences that it computed.
        num_read: the tokens of prompts that it read.
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
"""Called on the event loop's thread after each step that gave something."""
