"""The tokens that a config names."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of tokens with a meaning; None or empty where a model has none.

    Attributes:
        bos: begins a text.
        eos: each of them ends a generation.
        pad: fills up shorter sequences.
        decoder_start: the decoder's first token, in encoder-decoder models.
    """

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    decoder_start: int | None = None


NO_TOKENS: Final = SpecialTokens()
