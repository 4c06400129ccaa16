"""Tokenizes texts for an encoder, and computes the tokens of many texts together, packed."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triune.core.datatypes import Array
from triune.core.errors import InternalError, InvalidArgumentError
from triune.core.runtime import Executable
from triune.engine.encoder_steps import MAX_TOKENS, steps_of
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

Ids: TypeAlias = NDArray[np.int64]

_CHARACTERS_A_TOKEN: Final = 256
"""A text with more characters than this for each token that a model can read is refused without being tokenized. The
limit is needed since spaces may give no tokens.
"""


_QUICK_CHARACTERS: Final = 1 << 10
"""Inputs of up to this many characters in all are tokenized and computed together, by one worker. Longer inputs are
tokenized in parts, and texts of other requests are computed in between.
"""

_TOKEN_CHARACTERS: Final = 4
"""The number of characters that a token is assumed to have."""

_PART_CHARACTERS: Final = 1 << 16
"""The number of characters of the parts in which inputs of more than `_QUICK_CHARACTERS` are tokenized."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """An encoder's tokenizer and the description of its output. The executable that computes is given to each call. Any
    thread may use it.

    Attributes:
        tokenizer: the tokenizer.
        max_tokens: the largest number of tokens of a text, special tokens included.
        vocab_size: the number of rows of the embedding.
        output: the name of the graph's output with a row for each text.
        width: the length of a row.
    """

    tokenizer: Tokenizer
    max_tokens: int
    vocab_size: int
    output: str
    width: int

    def read(self, inputs: Sequence[object], first: int = 0) -> list[Ids]:
        """Tokenize texts. Returns the ids of each, INT64 [tokens].

        Args:
            inputs: each a text, its bytes in UTF-8, or the ids of its tokens. Special tokens are added to texts only.
            first: the index of the first text among all inputs of the request, for error messages.

        Raises:
            InvalidArgumentError: a text is empty, too long or not UTF-8, or a token is unknown.
        """
        texts = {at: self._text(each, at) for at, each in enumerate(inputs, first) if isinstance(each, str | bytes)}
        encoded = dict(zip(texts, self.tokenizer.encode_all(list(texts.values())), strict=True))
        tokens = [_ids(encoded.get(at, each), at) for at, each in enumerate(inputs, first)]
        for at, ids in enumerate(tokens, first):
            if not 1 <= len(ids) <= self.max_tokens:
                raise InvalidArgumentError(
                    f"input {at} has {len(ids)} tokens; the model reads 1 to {self.max_tokens}: shorten it, or split it"
                )
            if at not in encoded and not 0 <= ids.min() <= ids.max() < self.vocab_size:
                unknown = next(int(each) for each in ids if not 0 <= each < self.vocab_size)
                raise InvalidArgumentError(
                    f"input {at} holds the token {unknown}; the model's tokens are 0 to {self.vocab_size - 1}"
                )
        return tokens

    def is_quick(self, inputs: Sequence[object]) -> bool:
        """Whether inputs are so short that `read` takes a few milliseconds at most, and `compute` a single step."""
        return self.tokenizer.is_quick and self.expected_tokens(inputs) * _TOKEN_CHARACTERS <= _QUICK_CHARACTERS

    def expected_tokens(self, inputs: Sequence[object]) -> int:
        """About how many tokens `read` will find, estimated from the number of characters."""
        characters = _length([each for each in inputs if isinstance(each, str | bytes)])
        ids = _length([each for each in inputs if not isinstance(each, str | bytes)])
        return ids + -(-characters // _TOKEN_CHARACTERS) + len(inputs)

    def parts_to_read(self, inputs: Sequence[object]) -> Iterator[tuple[int, int, int]]:
        """Divide the inputs into parts for which `read` takes about ten milliseconds. Yields (begin, end, number of
        characters).
        """
        begin = length = 0
        for at, each in enumerate(inputs):
            more = _length([each])
            if at > begin and length + more > _PART_CHARACTERS:
                yield begin, at, length
                begin, length = at, 0
            length += more
        yield begin, len(inputs), length

    def compute(self, executable: Executable, texts: Sequence[Ids]) -> NDArray[np.float32]:
        """Compute the output's row for each text, FP32 [texts, width]. Texts of similar length are computed together.

        Raises:
            InternalError: the runtime failed, or gave NaN or infinity.
        """
        rows = self.compute_unchecked(executable, texts)
        if not np.isfinite(rows).all():
            raise InternalError("the model gave numbers that are not finite; its weights or its precision do not suit")
        return rows

    def compute_unchecked(self, executable: Executable, texts: Sequence[Ids]) -> NDArray[np.float32]:
        """Compute as `compute` does, but without checking for NaN and infinities. Raises InternalError if the runtime
        failed.
        """
        rows = np.empty((len(texts), self.width), np.float32)
        names = {spec.name for spec in executable.signature.inputs}
        for step in steps_of([len(each) for each in texts], lambda: MAX_TOKENS):
            given = {name: array for name, array in pack([texts[at] for at in step]).items() if name in names}
            rows[step] = executable.run(given, [self.output])[self.output]
        return rows

    def _text(self, given: str | bytes, at: int) -> str:
        limit = self.max_tokens * _CHARACTERS_A_TOKEN
        if not 1 <= len(given) <= limit:
            raise InvalidArgumentError(
                f"input {at} has {len(given)} {'characters' if isinstance(given, str) else 'bytes'}; the model reads "
                f"1 to {self.max_tokens} tokens, and of a text at most {limit} characters"
            )
        if isinstance(given, str):
            return given
        try:
            return given.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"input {at} is not UTF-8: {error.reason} at byte {error.start}; encode the text as UTF-8"
            ) from None


def _length(inputs: Sequence[object]) -> int:
    """The total length of inputs, in characters, bytes and ids."""
    return sum(len(each) for each in inputs if isinstance(each, Sized))


def _ids(given: object, at: int) -> Ids:
    try:
        return np.array(given, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"input {at} is neither a text nor ids of tokens: {error}") from None


def pack(texts: Sequence[Ids]) -> Mapping[str, Array]:
    """Pack tokenized texts, INT64 [tokens] each, into the inputs of a graph in the packed form
    (`models.encoder_forms.PackedEncoder`).
    """
    lengths = np.array([len(each) for each in texts], np.int64)
    begins = np.cumsum(lengths) - lengths
    steps = np.arange(int(lengths.max()))
    is_token: NDArray[np.bool_] = steps < lengths[:, np.newaxis]
    ids = np.concatenate(texts)
    return {
        "input_ids": ids,
        "position_ids": np.broadcast_to(steps, is_token.shape)[is_token],
        "token_type_ids": np.zeros_like(ids),
        "token_rows": np.where(is_token, begins[:, np.newaxis] + steps, 0),
        "token_places": np.flatnonzero(is_token),
        "lengths": lengths,
    }
