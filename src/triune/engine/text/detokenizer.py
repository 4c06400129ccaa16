"""Incremental detokenization: convert tokens into text one after another."""

import codecs
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from triune.engine.weights.tokenizer.tokenizer import Tokenizer


class Detokenizer:
    """Turns the tokens of one answer into text.

    A character may begin in one token and end in another one. Its bytes are held back until it is complete. Bytes that
    are not UTF-8 become U+FFFD. The text is the same as if all bytes were decoded together.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        *,
        drops_space: bool = False,
        shown: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        """Args:
        token_bytes: the bytes of each token; see `Tokenizer.token_bytes`.
        drops_space: whether a space at the beginning of the text is dropped.
        shown: the bytes of special tokens that are part of the text.
        """
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_space = drops_space
        self._shown = shown

    def add(self, token: int) -> str:
        """The text that a token completes; it may be empty."""
        added = self._token_bytes[token] or self._shown.get(token, b"")
        if self._drops_space and added:
            self._drops_space = False
            added = added.removeprefix(b" ")
        return self._decoder.decode(added)

    def end(self) -> str:
        """The remaining text: U+FFFD if a character is incomplete, else empty. No token may follow."""
        return self._decoder.decode(b"", final=True)


def drops_first_space(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's decoder drops a space at the beginning of a text, as decoders of SentencePiece do."""
    for token, added in enumerate(tokenizer.token_bytes):
        if added.startswith(b" ") and added.strip().isalpha():
            return not tokenizer.decode([token]).startswith(" ")
    return False
