"""Convert text to token ids and back, with a model's tokenizer."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

import tokenizers

from triune.core.errors import InvalidArgumentError
from triune.core.panics import is_panic
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.tokenizer.bytes import token_bytes
from triune.engine.weights.tokenizer.growth import Growth
from triune.engine.weights.tokenizer.quick import is_quick

_SHORT_CHARACTERS: Final = 256
"""Texts up to this length are encoded in less than 0.1 ms, so that it is not worth releasing the GIL."""


class Tokenizer:
    """A tokenizer of the `tokenizers` library, with the special tokens of its model. Any thread may use it.

    Attributes:
        backend: the library's tokenizer.
        tokens: bos, eos and pad.
        num_tokens: the largest id plus 1; the model's embedding may have more rows.
    """

    def __init__(self, backend: tokenizers.Tokenizer, tokens: SpecialTokens, vocab_size: int, where: str) -> None:
        """Args:
        backend: the library's tokenizer, which must not be changed afterwards.
        tokens: bos, eos and pad.
        vocab_size: the rows of the model's embedding.
        where: names the model in errors.

        Raises:
            InvalidArgumentError: the tokenizer gives ids for which the embedding has no row, or makes texts too long
                (`Growth`).
        """
        self.backend = backend
        self.tokens = tokens
        # Some ids may be unused, so the largest id counts, not the number of tokens.
        self.num_tokens = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if self.num_tokens > vocab_size:
            raise InvalidArgumentError(
                f"{where}: the tokenizer gives ids up to {self.num_tokens - 1}; the embedding has {vocab_size} rows"
            )
        self._growth = Growth.of(backend, where)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text. Special tokens that are written out in it become those tokens.

        Args:
            text: any text that UTF-8 can encode.
            add_special_tokens: whether to add the special tokens that the model expects around a text: bos, or [CLS]
                and [SEP]. A text that a chat template made has them already.

        Raises:
            InvalidArgumentError: the text has half a surrogate pair, the model's tokenizer fails on it, or the
                tokenizer could make it too long (`Growth`).
        """
        self._growth.check(text)
        if len(text) > _SHORT_CHARACTERS or not self.is_quick:
            return self.encode_all([text], add_special_tokens=add_special_tokens)[0]
        try:
            # Encode a short text in this thread, which holds the GIL for microseconds. `encode_all` would have to wait
            # for a thread of the library, and for the GIL.
            return self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        except BaseException as error:
            _refuse_text([text], error)
            raise

    def encode_all(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """The ids of several texts, which are tokenized in parallel: see `encode`."""
        for text in texts:
            self._growth.check(text)
        try:
            # This releases the GIL, unlike the library's `encode`: a long text takes a tenth of a second.
            found = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except BaseException as error:
            _refuse_text(texts, error)
            raise
        return [each.ids for each in found]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids, without special tokens if `skip_special_tokens`. Bytes that are not UTF-8 become U+FFFD.

        Raises:
            InvalidArgumentError: an id is not in the vocabulary, or the model's decoder fails on the ids.
        """
        for token in ids:
            if not 0 <= token < self.num_tokens:
                raise InvalidArgumentError(f"the token {token} is not in the vocabulary of {self.num_tokens}")
        try:
            if len(ids) > _SHORT_CHARACTERS or not self.is_quick:
                return self.backend.decode_batch([list(ids)], skip_special_tokens=skip_special_tokens)[0]
            return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)
        except BaseException as error:
            if is_panic(error):
                raise InvalidArgumentError(f"the model's tokenizer fails on these tokens: {error}") from error
            raise

    def special_bytes(self, texts: Iterable[str]) -> dict[int, bytes]:
        """Maps the ids of special tokens to the bytes of their texts. Texts that are not tokens are left out."""
        ids = ((text, self.backend.token_to_id(text)) for text in texts)
        return {token: text.encode() for text, token in ids if token is not None}

    @cached_property
    def is_quick(self) -> bool:
        """Whether every text of up to `_SHORT_CHARACTERS` characters is certainly tokenized in less than 0.1 ms."""
        return is_quick(self.backend)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id adds to a text; empty for special tokens.

        The bytes of a text's tokens, one after the other, are the text, except for a first space that SentencePiece's
        decoders drop. So a text can be streamed token by token, or constrained to a grammar.
        """
        return token_bytes(self.backend, self.num_tokens)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the special tokens."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(token for token, entry in added.items() if entry.special)


def _refuse_text(texts: Sequence[str], error: BaseException) -> None:
    """Raise InvalidArgumentError if `error` was raised because of a text.

    For a text with half a surrogate pair (U+D800 to U+DFFF) the library only says that it expects a text. On other
    texts the tokenizer itself fails: a regular expression may reach the limit of its library.
    """
    if is_panic(error):
        raise InvalidArgumentError(f"the model's tokenizer fails on the text: {error}; send another text") from error
    if not isinstance(error, TypeError | UnicodeEncodeError):
        return
    for text in texts:
        place = next((at for at, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
        if place is not None:
            raise InvalidArgumentError(
                f"the text cannot be encoded as UTF-8: character {place} of it is half a surrogate pair"
            ) from error
