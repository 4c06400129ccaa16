"""The special tokens of a model, as its config gives them: those that begin and end a text, and the padding."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that have a special meaning; None or empty where the model has no such token.

    Attributes:
        bos: the token that begins a text.
        eos: the tokens each of which ends a generation.
        pad: the token that fills up shorter sequences of a batch.
        decoder_start: the decoder's first token, in encoder-decoder models.
    """

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    decoder_start: int | None = None


NO_TOKENS: Final = SpecialTokens()
