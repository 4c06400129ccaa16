"""The state of one generation: its tokens, its blocks, and its end."""

from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from triune.core.energy import Bill
from triune.core.errors import InvalidArgumentError, TriuneError
from triune.engine.kv.hashes import BlockHash
from triune.engine.kv.table import BlockTable
from triune.engine.rules import TokenRules
from triune.engine.sampling.prompt_scores import PromptScores
from triune.engine.sampling.sampler import SamplingState
from triune.engine.structured.matcher import Matcher


class FinishReason(Enum):
    """Why a sequence has ended. The values are OpenAI's `finish_reason` where OpenAI has one."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    CANCELLED = "cancelled"
    MOVED = "moved"
    """The sequence was moved to another engine, which continues it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """When a sequence ends by itself.

    Attributes:
        max_tokens: the most tokens of the answer, at least 1.
        stop_tokens: token ids that end the answer, including the model's own end tokens unless they are ignored.
        min_tokens: stop tokens count only after this many tokens of the answer.
    """

    max_tokens: int
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0

    def __post_init__(self) -> None:
        """Raise InvalidArgumentError if a number is out of range."""
        if self.max_tokens < 1:
            raise InvalidArgumentError(f"max_tokens is {self.max_tokens}; it must be 1 or more")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InvalidArgumentError(
                f"min_tokens is {self.min_tokens}; it must be between 0 and max_tokens, {self.max_tokens}"
            )


@dataclass(eq=False, slots=True)
class Sequence:
    """A sequence that the engine generates. Only the thread of its `EngineCore` changes it.

    Attributes:
        prompt: the prompt's token ids, at least one.
        table: its KV blocks.
        sampling: how its tokens are chosen.
        ending: when it ends.
        priority: how urgent it is; 0 is the most urgent.
        salt: a hash of everything that its keys and values depend on besides its tokens, such as a LoRA adapter (see
            `kv.hashes.block_hashes`).
        arrived_ns: when it arrived, on the engine's clock.
        matcher: the constraint on its answer; None if there is none.
        adapter: the number of its LoRA adapter (`DecoderStep.adapters`); 0 for none.
        rules: rules that change or choose the next token by its logits; None if there are none. A sequence has a
            matcher or rules, not both.
        memory: the encoder output that it reads, by the names of the decoder's inputs: FP32 [1, source tokens, width].
        source: the tokens of the text that an encoder reads for it, before its first step and again after a preemption.
            `memory` has the encoder's output, and is empty until then.
        scores: the probabilities of the prompt's own tokens; None if they are not requested.
        bill: the bill that is charged with its joules; None if energy is not metered.
        started_ns: when its first step was planned; None before that.
        tokens: the prompt and the answer so far.
        hashes: the hashes of the full blocks of all tokens but the last, from the time when it last waited.
        finish_reason: why it has ended; None while it runs.
        error: the error that ended it, if the reason is ERROR.
        num_cached_tokens: tokens of the prompt that were found in the cache when it began.
        num_preemptions: how often it was preempted: its blocks were given to others.
        num_awaited: the number of blocks that are being read from files for it. It does not begin before they are read.
        is_follower: whether it is not the first of several answers to one prompt.
        place: the index of its prompt among the prompts of one request.
        num_at_turn: the number of tokens that it had when it last got blocks.
    """

    prompt: Tokens[int]
    table: BlockTable
    sampling: SamplingState
    ending: Ending
    priority: int = 0
    salt: bytes = b""
    arrived_ns: int = 0
    matcher: Matcher | None = None
    adapter: int = 0
    rules: TokenRules | None = None
    memory: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    source: tuple[int, ...] = ()
    scores: PromptScores | None = field(default=None, init=False)
    bill: Bill | None = field(default=None, init=False)
    started_ns: int | None = field(default=None, init=False)
    tokens: list[int] = field(init=False)
    hashes: list[BlockHash] = field(default_factory=list[BlockHash], init=False)
    finish_reason: FinishReason | None = field(default=None, init=False)
    error: TriuneError | None = field(default=None, init=False)
    num_cached_tokens: int = field(default=0, init=False)
    num_preemptions: int = field(default=0, init=False)
    num_awaited: int = field(default=0, init=False)
    is_follower: bool = field(default=False, init=False)
    place: int = field(default=0, init=False)
    num_at_turn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Let `tokens` begin with the prompt."""
        self.tokens = list(self.prompt)

    def follow(self, other: "Sequence") -> None:
        """Copy the times, the record of joules (`bill`) and the prompt's probabilities from `other`, the same sequence
        as another unit computed it before.
        """
        self.scores = other.scores
        if other.started_ns is not None:
            self.started_ns, self.num_cached_tokens = other.started_ns, other.num_cached_tokens
        self.arrived_ns = other.arrived_ns
        if self.bill is not None and other.bill is not None:
            for accountant in self.bill.accountants:
                other.bill.join(accountant)
            self.bill = other.bill

    @property
    def num_answered(self) -> int:
        """The number of tokens in the answer so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def num_to_compute(self) -> int:
        """The number of tokens whose keys and values are not in the cache yet: 1 while decoding, more while the prompt
        is read.
        """
        return len(self.tokens) - self.table.num_tokens

    @property
    def num_sharable(self) -> int:
        """The largest number of tokens whose keys and values the sequence may take from the prefix cache. A token must
        be computed if the next token's probability is wanted and not known yet.
        """
        return self.scores.num_read if self.scores is not None and self.is_scored else len(self.tokens) - 1

    @property
    def is_scored(self) -> bool:
        """Whether the probabilities of tokens of the prompt are still to be computed."""
        return self.scores is not None and not self.scores.is_complete

    @property
    def num_unread(self) -> int:
        """The number of tokens of its source that the encoder must read before the sequence's next step."""
        return 0 if self.memory else len(self.source)

    def forget_source(self) -> None:
        """Free the encoder's output for its source, if it has one."""
        if self.source:
            self.memory = {}

    @property
    def is_complete(self) -> bool:
        """Whether the answer's constraint allows no further token."""
        return self.matcher is not None and self.matcher.is_ended

    @property
    def takes_best(self) -> bool:
        """Whether the next token is the most probable one and no probabilities are wanted."""
        return self.matcher is None and self.rules is None and self.sampling.takes_best

    def go_on(self, token: int) -> None:
        """Advance the sampling state and the constraint by a token, before it is appended."""
        self.sampling.append(token)
        if self.matcher is not None:
            self.matcher.accept(token)
        if self.rules is not None:
            self.rules.accept(token)

    def append(self, token: int) -> None:
        """Add a token to the answer, and end the sequence if that is due."""
        self.tokens.append(token)
        if self.is_complete or (token in self.ending.stop_tokens and self.num_answered > self.ending.min_tokens):
            self.finish_reason = FinishReason.STOP
        elif self.num_answered >= self.ending.max_tokens:
            self.finish_reason = FinishReason.LENGTH
