"""Maps each token of a vocabulary to the bytes that it adds to a text."""

import json
import re
from collections.abc import Callable
from typing import Final, cast

import tokenizers

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> dict[str, int]:
    """Maps each character of byte-level vocabularies to the byte that it represents, as defined by GPT-2.

    Bytes that are printable in Latin-1 are represented by their own character. The others are represented, in order, by
    the letters from U+0100 on.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_LETTERS: Final = _byte_letters()


def token_bytes(backend: tokenizers.Tokenizer, num_tokens: int) -> tuple[bytes, ...]:
    """The bytes of each id below `num_tokens`; empty for special tokens and for ids that no token has."""
    added = backend.get_added_tokens_decoder()
    convert = _converter(backend)
    result: list[bytes] = []
    for token in range(num_tokens):
        entry = added.get(token)
        if entry is not None:
            result.append(b"" if entry.special else entry.content.encode())
        else:
            text = backend.id_to_token(token)
            result.append(b"" if text is None else convert(text))
    return tuple(result)


def _converter(backend: tokenizers.Tokenizer) -> Callable[[str], bytes]:
    """Returns the function that converts a token of the vocabulary to bytes, as the tokenizer's decoder does."""
    kinds = _decoder_kinds(backend)
    if "ByteLevel" in kinds:
        return _from_byte_letters
    if kinds & {"ByteFallback", "Metaspace", "Replace"}:
        return _from_sentence_piece
    if "WordPiece" in kinds:
        return lambda token: (token[2:] if token.startswith("##") else f" {token}").encode()
    return str.encode


def _decoder_kinds(backend: tokenizers.Tokenizer) -> set[str]:
    decoder = cast("object", backend.decoder)
    if decoder is None:
        return set()
    state = cast("dict[str, object]", json.loads(decoder.__getstate__()))  # pyright: ignore[reportArgumentType]
    parts = cast("list[dict[str, object]]", state.get("decoders", [state]))
    return {str(part["type"]) for part in parts}


def _from_byte_letters(token: str) -> bytes:
    try:
        return bytes([_BYTE_LETTERS[letter] for letter in token])
    except KeyError:
        # A character of the token stands for no byte, so the token is not byte-coded, but plain text.
        return token.encode()


def _from_sentence_piece(token: str) -> bytes:
    if (byte := _BYTE.fullmatch(token)) is not None:
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode()
