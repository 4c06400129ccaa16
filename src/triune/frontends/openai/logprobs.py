"""Probabilities of tokens, in the two forms of OpenAI's API."""

from collections.abc import Sequence
from typing import Any

from triune.engine.generation import TokenLogprob

_LOWEST = -9999.0
"""OpenAI's word for a token that is nearly impossible; JSON has no infinity."""


def chat_logprobs(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Probabilities in the form of chats and responses."""
    return [{**_entry(each), "top_logprobs": [_entry(other) for other in each.top]} for each in logprobs]


def completion_logprobs(logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, list[Any]]:
    """Probabilities in the form of completions.

    Args:
        logprobs: the tokens.
        offset: where in the answer's text they begin.
    """
    texts = [_text(each) for each in logprobs]
    offsets = [offset]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return {
        "tokens": texts,
        "token_logprobs": [max(each.logprob, _LOWEST) for each in logprobs],
        "top_logprobs": [{_text(other): max(other.logprob, _LOWEST) for other in each.top} for each in logprobs],
        "text_offset": offsets[:-1],
    }


def _entry(logprob: TokenLogprob) -> dict[str, Any]:
    return {"token": _text(logprob), "logprob": max(logprob.logprob, _LOWEST), "bytes": list(logprob.text)}


def _text(logprob: TokenLogprob) -> str:
    return logprob.text.decode(errors="replace")
