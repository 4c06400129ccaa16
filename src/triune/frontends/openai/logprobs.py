"""Log-probabilities of tokens in the forms of OpenAI's API: one for chats and responses, another one for
completions.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from triune.engine.generation import PromptLogprobs, TokenLogprob

_LOWEST = -9999.0
"""The logarithm that OpenAI's API has for a token that is nearly impossible, since JSON has no infinity."""

_SLICE_PROBABILITIES = 256
"""About how many probabilities are written between two other tasks of the event loop."""


def chat_logprobs(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities in the form of `chat/completions` and `responses`: an object for each token."""
    return [{**_entry(each), "top_logprobs": [_entry(other) for other in each.top]} for each in logprobs]


def completion_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, list[Any]]:
    """Log-probabilities in the form of `completions`: one object with a list for each property of the tokens.

    Args:
        logprobs: the tokens with their log-probabilities.
        offset: the index in the answer's text at which the first token begins.
    """
    texts = [_text(each) for each in logprobs]
    offsets = [offset]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return {
        "tokens": texts,
        "token_logprobs": [_number(each.logprob) for each in logprobs],
        "top_logprobs": [
            None if math.isnan(each.logprob) else {_text(other): _number(other.logprob) for other in each.top}
            for each in logprobs
        ],
        "text_offset": offsets[:-1],
    }


def slices_of(prompt: PromptLogprobs) -> Iterator[tuple[TokenLogprob, ...]]:
    """The tokens of a prompt with their probabilities, a few at a time."""
    step = max(1, _SLICE_PROBABILITIES // (1 + prompt.num_top))
    for begin in range(0, len(prompt), step):
        yield prompt.slice(begin, begin + step)


def _entry(logprob: TokenLogprob) -> dict[str, Any]:
    return {"token": _text(logprob), "logprob": _number(logprob.logprob), "bytes": list(logprob.text)}


def _number(logprob: float) -> float | None:
    """A log probability as a JSON number; None for NaN."""
    return None if math.isnan(logprob) else max(logprob, _LOWEST)


def _text(logprob: TokenLogprob) -> str:
    return logprob.text.decode(errors="replace")
