"""The tokenizer in a GGUF file's metadata. Sources: ggml's docs/gguf.md, and llama.cpp's llama-vocab.cpp."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from triune.core.datatypes import Array
from triune.core.errors import InvalidArgumentError, UnsupportedError
from triune.engine.weights.fields import Fields
from triune.engine.weights.gguf.reader import Value
from triune.engine.weights.tokenizer.splits import SPLITS

_NORMAL: Final = 1
_UNKNOWN: Final = 2
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_UNUSED: Final = 5
_BYTE: Final = 6

_MAX_PIECE_CHARACTERS: Final = 256
"""The most characters of a SentencePiece token. There is a limit since each way to split a token in two is tried as a
merge.
"""

_SPACE: Final = "▁"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a file, checked.

    Attributes:
        fields: the settings, without their prefix "tokenizer.ggml.".
        tokens: the text of each id.
        kinds: the kind of each id: one of the constants `_NORMAL` to `_BYTE`.
    """

    fields: Fields
    tokens: Sequence[str]
    kinds: Sequence[int]

    def number(self, name: str) -> int | None:
        """The token id in the setting `{name}_token_id`; None if it is missing.

        Raises:
            InvalidArgumentError: the id is not in the vocabulary.
        """
        return self.fields.whole_or_none(f"{name}_token_id", most=len(self.tokens) - 1)


def build_tokenizer(metadata: Mapping[str, Value], name: str) -> tokenizers.Tokenizer:
    """Build the tokenizer that a file's metadata describes. `name` names the file in errors.

    Raises:
        UnsupportedError: the tokenizer's model, or the way in which it splits texts, is not known here.
        InvalidArgumentError: a setting is missing, or settings contradict each other.
    """
    prefix = "tokenizer.ggml."
    settings = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    fields = Fields(settings, f"{name}: tokenizer.ggml")
    model = fields.text("model")
    build = _MODELS.get(model)
    if build is None:
        raise UnsupportedError(
            f"{name}: the tokenizer model {model!r} is not known here; known are {', '.join(_MODELS)}"
        )
    vocabulary = _read_vocabulary(fields)
    try:
        backend = build(vocabulary)
    except (InvalidArgumentError, UnsupportedError):
        raise
    except Exception as error:
        raise InvalidArgumentError(f"{name}: no tokenizer can be built of the metadata: {error}") from error
    _add_tokens(backend, vocabulary)
    return backend


def special_texts(metadata: Mapping[str, Value]) -> dict[str, str]:
    """The texts of the special tokens in a file's metadata, by the names that chat templates have for them, such as
    "bos_token".
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    texts: dict[str, str] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(tokens, tuple) and type(token) is int and 0 <= token < len(tokens):
            texts[f"{name}_token"] = tokens[token]
    return texts


def _read_vocabulary(fields: Fields) -> Vocabulary:
    tokens = _texts(fields, "tokens")
    kinds = _numbers(fields, "token_type", len(tokens)) if "token_type" in fields else np.full(len(tokens), _NORMAL)
    if not tokens:
        raise InvalidArgumentError(f"{fields.where}: there are no tokens")
    if kinds.min() < _NORMAL or kinds.max() > _BYTE:
        raise InvalidArgumentError(
            f"{fields.where}: token_type has values from {kinds.min()} to {kinds.max()}; expected 1 to 6"
        )
    return Vocabulary(fields, tokens, kinds.tolist())


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if not isinstance(value, tuple):
        raise fields.wrong(name, "an array of strings")
    return cast("tuple[str, ...]", value)


def _numbers(fields: Fields, name: str, length: int) -> Array:
    value = fields.get(name)
    numbers = cast("Array", value) if isinstance(value, np.ndarray) else np.empty(0)
    if numbers.size != length:
        raise fields.wrong(name, f"{length} numbers, as many as tokens")
    return numbers


def _ids(tokens: Sequence[str], fields: Fields) -> dict[str, int]:
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for index, token in enumerate(tokens) if ids[token] != index)
        raise InvalidArgumentError(f"{fields.where}: the token {twice!r} is given twice")
    return ids


def _gpt2(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    fields = vocabulary.fields
    kind = fields.text("pre", "default")
    split = SPLITS.get(kind)
    if split is None:
        raise UnsupportedError(
            f"{fields.where}: the way {kind!r} of splitting texts is not known here; known are {', '.join(SPLITS)}"
        )
    lines = _texts(fields, "merges")
    # The two tokens of a merge are split at the first space after the first character: a token may begin with a space,
    # but must not be empty.
    pairs = [(line[:at], line[at + 1 :]) for line in lines if (at := line.find(" ", 1)) > 0]
    if len(pairs) < len(lines):
        wrong = next(line for line in lines if line.find(" ", 1) < 1)
        raise InvalidArgumentError(f"{fields.where}: the merge {wrong!r} is no pair of tokens with a space between")
    ids = _ids(vocabulary.tokens, fields)
    backend = tokenizers.Tokenizer(models.BPE(ids, pairs, ignore_merges=split.ignores_merges))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=fields.flag("add_space_prefix", False), use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, letters])
    backend.decoder = decoders.ByteLevel()
    _frame(backend, vocabulary, adds_bos=split.adds_bos)
    return backend


def _sentence_piece(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    fields = vocabulary.fields
    scores = _numbers(fields, "scores", len(vocabulary.tokens))
    if not np.isfinite(scores).all():
        raise InvalidArgumentError(f"{fields.where}: a score is not a finite number")
    ids = _ids(vocabulary.tokens, fields)
    unknown = next((token for token, kind in zip(ids, vocabulary.kinds, strict=True) if kind == _UNKNOWN), None)
    merges = _merges(vocabulary, scores.tolist())
    has_bytes = _BYTE in vocabulary.kinds
    model = models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes)
    backend = tokenizers.Tokenizer(model)
    has_prefix = fields.flag("add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if has_prefix else spaces
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if has_prefix else steps)
    _frame(backend, vocabulary, adds_bos=True)
    return backend


def _merges(vocabulary: Vocabulary, scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece vocabulary, the best first.

    SentencePiece joins those two neighbours that together are the token with the best score.
    """
    pieces = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind == _NORMAL
    }
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, index in pieces.items():
        if len(token) > _MAX_PIECE_CHARACTERS:
            raise InvalidArgumentError(
                f"{vocabulary.fields.where}: token {index} has {len(token)} characters; at most "
                f"{_MAX_PIECE_CHARACTERS} are read"
            )
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in pieces and right in pieces:
                ranked.append((-scores[index], pieces[left], pieces[right], left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _word_piece(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    fields = vocabulary.fields
    # Translate the tokens to BERT's own vocabulary: GGUF files mark the tokens that begin a word with a leading "▁",
    # BERT marks the other tokens with "##".
    tokens = [
        token if kind != _NORMAL or _is_marker(token) else token[1:] if token.startswith(_SPACE) else f"##{token}"
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
    ]
    ids = _ids(tokens, fields)
    unknown = vocabulary.number("unknown")
    if unknown is None:
        raise fields.wrong("unknown_token_id", "the id of the unknown token")
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=tokens[unknown]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=fields.flag("normalizer.lowercase", True))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    begin = vocabulary.number("cls")
    begin = vocabulary.number("bos") if begin is None else begin
    # "seperator" is not a mistake here: the key is misspelt in the GGUF format itself.
    end = vocabulary.number("seperator")
    end = vocabulary.number("eos") if end is None else end
    if begin is None or end is None:
        raise InvalidArgumentError(f"{fields.where}: cls_token_id or seperator_token_id is missing")
    backend.post_processor = processors.BertProcessing((tokens[end], end), (tokens[begin], begin))
    return backend


def _is_marker(token: str) -> bool:
    return token.startswith("[") and token.endswith("]")


_MODELS: Final[Mapping[str, Callable[[Vocabulary], tokenizers.Tokenizer]]] = {
    "gpt2": _gpt2,
    "llama": _sentence_piece,
    "bert": _word_piece,
}


def _frame(backend: tokenizers.Tokenizer, vocabulary: Vocabulary, *, adds_bos: bool) -> None:
    """Make the tokenizer add bos before a text and eos after it, if the file says so. If it says nothing, bos is added
    if `adds_bos`, and eos is not.
    """
    fields = vocabulary.fields
    parts = {"bos": fields.flag("add_bos_token", adds_bos), "eos": fields.flag("add_eos_token", False)}
    ids = {what: vocabulary.number(what) for what, is_added in parts.items() if is_added}
    present = {what: token for what, token in ids.items() if token is not None}
    if present:
        # In this template, "A" and "B" stand for the two texts. The number after a colon is the token type.
        single = [part for part in ("bos", "$A", "eos") if part == "$A" or part in present]
        second = [part.replace("$A", "$B") + ":1" for part in single]
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(single), pair=" ".join([*single, *second]), special_tokens=list(present.items())
        )


def _add_tokens(backend: tokenizers.Tokenizer, vocabulary: Vocabulary) -> None:
    """Add the tokens that the tokenizer must recognise in a text before the text is split into words. Raises
    InvalidArgumentError if they are not among the vocabulary's tokens.
    """
    added = [
        AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in {_UNKNOWN, _CONTROL, _USER_DEFINED} and token
    ]
    backend.add_tokens(added)  # pyright: ignore[reportUnknownMemberType]
    if backend.get_vocab_size(with_added_tokens=True) != len(vocabulary.tokens):
        raise InvalidArgumentError(
            f"{vocabulary.fields.where}: the {len(vocabulary.tokens)} tokens became "
            f"{backend.get_vocab_size(with_added_tokens=True)}: special tokens are not among them"
        )
