"""Encoder-decoder models: the input of their encoder, and the interface that encodes it."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from triune.core.errors import InvalidArgumentError, TriuneError
from triune.engine.memory import Memory

Source: TypeAlias = tuple[int, ...]
"""The token ids of a text that an encoder reads."""


@dataclass(frozen=True, slots=True)
class SourceRules:
    """How an encoder-decoder model reads a prompt: the encoder reads the text, and the decoder begins with
    `start_token`.

    Attributes:
        start_token: the first input token of the decoder.
        max_tokens: the most tokens that the encoder reads.
    """

    start_token: int
    max_tokens: int

    def checked(self, tokens: Seq[int]) -> Source:
        """Check the tokens of a prompt that the encoder is to read, and return them as a tuple.

        Raises:
            InvalidArgumentError: there are no tokens, or too many.
        """
        if not tokens:
            raise InvalidArgumentError(
                f"the prompt has no token; the model's encoder reads 1 to {self.max_tokens}: give at least one"
            )
        if len(tokens) > self.max_tokens:
            raise InvalidArgumentError(
                f"the prompt has {len(tokens)} tokens; the model's encoder reads 1 to {self.max_tokens}: shorten it, "
                "or have it read more by the model's parameter 'context_tokens'"
            )
        return tuple(tokens)


class SourceReader(Protocol):
    """An encoder that reads prompts. Used on the thread of the engine's steps."""

    def read(self, sources: Seq[Source]) -> Seq[Memory | TriuneError]:
        """Encode each text. Returns the decoder's input for it, or the error of the encoder."""
        ...
