"""Limit how much longer a tokenizer can make a text.

A tokenizer file may contain successive replacements by long texts, and templates of many tokens: a few kilobytes of
these turn a short text into gigabytes.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import tokenizers

from triune.core.errors import InvalidArgumentError

MAX_GROWTH: Final = 256
"""The largest number of bytes that a tokenizer may make of one byte. T5's tokenizer makes at most 132 by this
estimate.
"""

MAX_ADDED_TOKENS: Final = 256
"""The most tokens that a tokenizer may add to a text. Published ones add up to 4."""

_HONEST_GROWTH: Final = 16
_MAX_GROWN_BYTES: Final = 1 << 22
_MAX_TOKEN_BYTES: Final = 1 << 16
_UNICODE_GROWTH: Final = 11
"""The largest growth of a character in the forms NFKC and NFKD: U+FDFA grows from 3 bytes to 33."""

_UNICODE_FORMS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "BertNormalizer", "StripAccents"})


@dataclass(frozen=True, slots=True)
class Growth:
    """How much longer a tokenizer can make a text, at worst.

    Attributes:
        factor: the most bytes that the tokenizer makes of one byte of a text.
    """

    factor: float

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer, where: str) -> "Growth":
        """Find the growth of a tokenizer from its normalizer, pre-tokenizer and decoder.

        Args:
            backend: the library's tokenizer.
            where: names the model in errors.

        Raises:
            InvalidArgumentError: the tokenizer makes texts or answers more than 256 times (MAX_GROWTH) as long, adds
                more than 256 tokens (MAX_ADDED_TOKENS), repeats texts, or has a token of more than 64 KiB.
        """
        factor = _factor([_written(backend.normalizer), _written(backend.pre_tokenizer)])
        for what, found in (("a text", factor), ("an answer", _factor(_written(backend.decoder)))):
            if found > MAX_GROWTH:
                raise InvalidArgumentError(
                    f"{where}: the tokenizer may make {what} {found:.3g} times as long; at most {MAX_GROWTH} is "
                    "accepted: take long replacements out of it"
                )
        _check_templates(_written(backend.post_processor), where)
        longest = max((len(token.encode()) for token in backend.get_vocab(with_added_tokens=True)), default=0)
        if longest > _MAX_TOKEN_BYTES:
            raise InvalidArgumentError(
                f"{where}: the tokenizer has a token of {longest} bytes; at most {_MAX_TOKEN_BYTES} are accepted"
            )
        return cls(factor)

    def check(self, text: str) -> None:
        """Check the length of a text for a tokenizer that makes texts much longer.

        Raises:
            InvalidArgumentError: more than 4 MiB could be made of it.
        """
        if self.factor > _HONEST_GROWTH and len(text) * self.factor > _MAX_GROWN_BYTES:
            raise InvalidArgumentError(
                f"the text has {len(text)} characters, and the model's tokenizer may make {self.factor:.3g} bytes of "
                f"each: at most {int(_MAX_GROWN_BYTES / self.factor)} are accepted; send a shorter text"
            )


def _written(part: Any) -> Any:
    """A part of a tokenizer as it is written in its file; None if there is none."""
    return None if part is None else json.loads(part.__getstate__())


def _factor(part: Any) -> float:
    """The most bytes that the normalizers, pre-tokenizers or decoders in `part` together make of one byte of text
    (`Growth.factor`). `part` is a part of a tokenizer as it is written in its file.
    """
    factor, has_forms = 1.0, False
    for step in _objects(part):
        kind = step.get("type")
        if kind in _UNICODE_FORMS:
            # Several Unicode normalizations make a text longer only once: text that is normalized already does not grow
            # further.
            has_forms = True
        elif kind == "Precompiled":
            factor *= _of_map(step)
        elif kind == "ByteLevel":
            factor *= 2
        elif kind == "Prepend":
            factor += len(step["prepend"].encode())
        elif kind == "Metaspace":
            factor *= len(step["replacement"].encode())
        elif kind == "Replace":
            content, pattern = len(step["content"].encode()), len(step["pattern"].get("String", "").encode())
            # An empty pattern matches between any two characters, so the content is inserted after each of them.
            factor *= max(1, content / pattern) if pattern else 1 + content
    return factor * _UNICODE_GROWTH if has_forms else factor


def _of_map(step: dict[str, Any]) -> float:
    """The most bytes that SentencePiece's table of characters makes of one byte, by its longest replacement; infinite
    if the table cannot be read. The table has the bytes of a trie, then the replacements, each of which ends in 0.
    """
    try:
        table = base64.b64decode(step.get("precompiled_charsmap") or "")
    except binascii.Error:
        return float("inf")
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    longest = max((len(text) for text in texts.split(b"\0")), default=0)
    # A replacement of up to 33 bytes counts as one of 3 bytes: NFKC makes 33 bytes of U+FDFA, which has 3. A longer one
    # counts as the replacement of a single byte.
    return max(longest / 3, 1) if longest <= 3 * _UNICODE_GROWTH else longest


def _check_templates(processor: Any, where: str) -> None:
    num_added = 0
    for step in _objects(processor):
        if step.get("type") != "TemplateProcessing":
            continue
        ids = {name: len(token["ids"]) for name, token in step["special_tokens"].items()}
        for pieces, texts in ((step["single"], ["A"]), (step["pair"], ["A", "B"])):
            found = [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece]
            if len(found) > len(texts):
                raise InvalidArgumentError(
                    f"{where}: the tokenizer's template has {len(found)} places for {len(texts)} texts; it must not "
                    "repeat them"
                )
            special = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
            if unknown := next((name for name in special if name not in ids), None):
                raise InvalidArgumentError(
                    f"{where}: the tokenizer's template adds the special token {unknown!a}, which it does not define"
                )
            num_added += sum(ids[name] for name in special)
    if num_added > MAX_ADDED_TOKENS:
        raise InvalidArgumentError(
            f"{where}: the tokenizer's templates add {num_added} tokens to texts; at most {MAX_ADDED_TOKENS} are "
            "accepted"
        )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all JSON objects that have a "type", outer ones before inner ones."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if isinstance(found.get("type"), str):
            yield found
        for each in found.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _objects(each)
