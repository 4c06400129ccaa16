"""The counters of an engine for the metrics. Only the event loop's thread changes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from triune.core.distributions import Histogram

FIRST_TOKEN_SECONDS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""The upper limits of the buckets of the time to the first token, in seconds, as in vLLM."""

BETWEEN_TOKENS_SECONDS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
"""The upper limits of the buckets of the time between two tokens of an answer, in seconds, as in vLLM."""


@dataclass(slots=True)
class EngineCounters:
    """Totals since the model was loaded.

    Attributes:
        num_prompt_tokens: tokens of prompts, counted for each answer that began.
        num_cached_tokens: tokens of prompts that were found in the prefix cache.
        num_tokens: tokens generated.
        first_token_seconds: the time from a request's arrival to the first token of each answer.
        between_tokens_seconds: the time from one token of an answer to the next one.
    """

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_tokens: int = 0
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_SECONDS))
    between_tokens_seconds: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS_SECONDS))

    def count_first(self, seconds: float, num_prompt_tokens: int, num_cached_tokens: int) -> None:
        """Count the first token of an answer, `seconds` after the request's arrival."""
        self.num_tokens += 1
        self.first_token_seconds.add(seconds)
        self.num_prompt_tokens += num_prompt_tokens
        self.num_cached_tokens += num_cached_tokens

    def count_next(self, seconds: float) -> None:
        """Count another token of an answer, `seconds` after the one before."""
        self.num_tokens += 1
        self.between_tokens_seconds.add(seconds)


@dataclass(frozen=True, slots=True)
class EngineState:
    """The current state of an engine, and the counters of its steps.

    Attributes:
        num_running: sequences that steps compute.
        num_waiting: sequences that wait for their first step, or for blocks.
        num_free_blocks: free KV blocks.
        num_used_blocks: KV blocks that sequences hold.
        num_cached_blocks: KV blocks that only the prefix cache holds.
        num_guessed: tokens that were proposed by speculative decoding, and computed.
        num_right: proposed tokens that were accepted into an answer.
        disk_blocks: the numbers of blocks that were stored in files, loaded from files, deleted because they were
            broken, and dropped because too many waited, by these names; empty without files.
        num_preempted: how often a sequence was preempted: its blocks were given to others.
        num_moved_out: how often the keys and values of a preempted sequence were kept in memory instead of computed
            again.
    """

    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_used_blocks: int
    num_cached_blocks: int
    num_guessed: int
    num_right: int
    disk_blocks: Mapping[str, int]
    num_preempted: int = 0
    num_moved_out: int = 0

    def __add__(self, other: "EngineState") -> "EngineState":
        """The sum of the states of two replicas of a model."""
        words = dict.fromkeys([*self.disk_blocks, *other.disk_blocks])
        return EngineState(
            self.num_running + other.num_running,
            self.num_waiting + other.num_waiting,
            self.num_free_blocks + other.num_free_blocks,
            self.num_used_blocks + other.num_used_blocks,
            self.num_cached_blocks + other.num_cached_blocks,
            self.num_guessed + other.num_guessed,
            self.num_right + other.num_right,
            {word: self.disk_blocks.get(word, 0) + other.disk_blocks.get(word, 0) for word in words},
            self.num_preempted + other.num_preempted,
            self.num_moved_out + other.num_moved_out,
        )
