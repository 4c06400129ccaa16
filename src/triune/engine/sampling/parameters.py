"""The sampling parameters of a request."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from triune.core.errors import InvalidArgumentError

MAX_LOGPROBS = 20
"""OpenAI's limit on `top_logprobs`."""

MAX_BIAS = 100.0
"""OpenAI's limit on the absolute value of a logit's bias."""

LEAST_TEMPERATURE = 1e-5
"""Below this temperature the most probable token is always taken: logits in FP32, divided by less, may overflow."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How the tokens of a sequence are chosen. The names are those of OpenAI's API and of Hugging Face's generation.

    The logits are changed in this order: bias, penalties, temperature; then tokens are left out by `min_p`, `top_k` and
    `top_p`, in this order; then one of the remaining tokens is drawn by its probability.

    Attributes:
        temperature: the number by which logits are divided; 0 takes the most probable token (greedy).
        top_p: keeps the most probable tokens whose probabilities together reach this sum; 1 keeps all.
        top_k: keeps this many of the most probable tokens; 0 keeps all.
        min_p: keeps tokens whose probability is at least this fraction of the most probable token's; 0 keeps all.
        repetition_penalty: for tokens that occur in the prompt or the answer, a positive logit is divided by this
            number, and a negative one multiplied (Keskar et al., 2019, arXiv:1909.05858, section 4.1); 1 changes
            nothing.
        presence_penalty: the number that is subtracted from the logit of each token that occurs in the answer.
        frequency_penalty: the number that is subtracted from the logit of a token for each time that it occurs in the
            answer.
        logit_bias: for each token id, the number that is added to its logit, from -100 to 100.
        seed: makes the choice repeatable; None takes another seed for each request.
        num_logprobs: how many of the most probable tokens to report with each token; None reports no probabilities.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    seed: int | None = None
    num_logprobs: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: a value is out of range, or not a finite number.
        """
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InvalidArgumentError(f"{name} is {value}; it must be between {low:g} and {high:g}")
        if self.top_p == 0:
            raise InvalidArgumentError("top_p is 0; it must be above 0: for the most probable token use temperature 0")
        if self.top_k < 0:
            raise InvalidArgumentError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")
        if self.num_logprobs is not None and not 0 <= self.num_logprobs <= MAX_LOGPROBS:
            raise InvalidArgumentError(f"top_logprobs is {self.num_logprobs}; it must be between 0 and {MAX_LOGPROBS}")
        for token, bias in self.logit_bias.items():
            if not (math.isfinite(bias) and abs(bias) <= MAX_BIAS):
                raise InvalidArgumentError(
                    f"logit_bias of token {token} is {bias}; it must be between {-MAX_BIAS:g} and {MAX_BIAS:g}"
                )

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise InvalidArgumentError if `logit_bias` names a token that the model does not have."""
        for token in self.logit_bias:
            if not 0 <= token < vocab_size:
                raise InvalidArgumentError(
                    f"logit_bias names token {token}; the model's tokens are 0 to {vocab_size - 1}"
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < LEAST_TEMPERATURE

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


SAMPLING_FIELDS: frozenset[str] = frozenset(each.name for each in fields(SamplingParameters))
"""The names of the parameters, for code that reads them from a request."""
