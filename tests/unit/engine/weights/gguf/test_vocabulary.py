import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune.core.errors import InvalidArgumentError, TriuneError, UnsupportedError
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.gguf.reader import Value
from triune.engine.weights.gguf.vocabulary import build_tokenizer
from triune.engine.weights.tokenizer.splits import SPLITS
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_PIECES = ("▁", "a", "b", "c", "ab", "abc", "bc", "▁a", "▁ab", "ca", "aa", "aaa", "é", "▁é")
_SCORES = {
    "ab": -1.0,
    "bc": -2.0,
    "▁a": -3.0,
    "abc": -0.5,
    "▁ab": -4.0,
    "ca": -5.0,
    "aa": -6.0,
    "aaa": -7.0,
    "▁é": -8.0,
}


def _sentence_piece(**changes: Value) -> dict[str, Value]:
    tokens = ("<unk>", "<s>", "</s>", *_BYTES, *_PIECES, "<|user|>", "[tag]")
    scores = [0.0] * (3 + 256) + [_SCORES.get(piece, -100.0) for piece in _PIECES] + [0.0, 0.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(_PIECES) + [3, 4]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.ggml.{name}": each for name, each in changes.items()},
    }


def _greedy(text: str, tokens: tuple[str, ...]) -> list[int]:
    """SentencePiece's way, said slowly: of all neighbours, join those with the best score, the leftmost of equals."""
    parts = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        joins = [
            (-_SCORES[parts[at] + parts[at + 1]], at)
            for at in range(len(parts) - 1)
            if parts[at] + parts[at + 1] in _SCORES
        ]
        if not joins:
            break
        _, at = min(joins)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ids: list[int] = []
    for part in parts:
        ids += [tokens.index(part)] if part in _PIECES else [3 + byte for byte in part.encode()]
    return ids


@given(st.text("abcé x東", max_size=12))
def test_sentence_piece_joins_the_best_first(text: str) -> None:
    metadata = _sentence_piece()
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple)
    backend = build_tokenizer(metadata, "model")
    ids = backend.encode(text, add_special_tokens=False).ids
    assert ids == _greedy(text, tokens)
    assert backend.encode(text).ids == [1, *ids]
    assert backend.decode(ids) == text
    tokenizer = Tokenizer(backend, SpecialTokens(), len(tokens), "model")
    assert b"".join(tokenizer.token_bytes[each] for each in ids).decode() == (f" {text}" if text else "")


def test_tokens_that_stand_whole() -> None:
    backend = build_tokenizer(_sentence_piece(add_bos_token=False, add_eos_token=True), "model")
    tokens = _sentence_piece()["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple)
    user, tag = tokens.index("<|user|>"), tokens.index("[tag]")
    assert backend.encode("<|user|>ab[tag]").ids == [user, tokens.index("▁ab"), tag, 2]
    assert backend.decode([user, tokens.index("▁ab"), tag]) == "ab[tag]"
    tokenizer = Tokenizer(backend, SpecialTokens(), len(tokens), "model")
    assert tokenizer.special_ids == {0, 1, 2, user}
    assert (tokenizer.token_bytes[user], tokenizer.token_bytes[tag]) == (b"", b"[tag]")


def test_without_a_space_before_the_text() -> None:
    backend = build_tokenizer(_sentence_piece(add_space_prefix=False), "model")
    tokens = _sentence_piece()["tokenizer.ggml.tokens"]
    assert isinstance(tokens, tuple)
    ids = backend.encode("ab ab", add_special_tokens=False).ids
    assert [tokens[each] for each in ids] == ["ab", "▁ab"]
    assert backend.decode(ids) == "ab ab"


def _gpt2(**changes: Value) -> dict[str, Value]:
    tokens = ("a", "b", "1", "2", "Ġ", "ab", "Ġa", "12", "<|end|>")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([1] * 8 + [3]),
        "tokenizer.ggml.merges": ("a b", "Ġ a", "1 2"),
        **{f"tokenizer.ggml.{name}": each for name, each in changes.items()},
    }


def test_ways_of_splitting() -> None:
    assert build_tokenizer(_gpt2(), "model").encode("ab a12<|end|>").ids == [5, 6, 7, 8]
    assert build_tokenizer(_gpt2(pre="smollm"), "model").encode("ab a12").ids == [5, 6, 2, 3]
    for pre in SPLITS:
        backend = build_tokenizer(_gpt2(pre=pre), "model")
        assert backend.decode(backend.encode("ab a12").ids) == "ab a12"


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        (_gpt2(pre="odd"), UnsupportedError, "the way 'odd' of splitting texts is not known here; known are default"),
        (_gpt2(model="rwkv"), UnsupportedError, "the tokenizer model 'rwkv' is not known here"),
        (_gpt2(merges=("ab",)), InvalidArgumentError, "the merge 'ab' is no pair of tokens"),
        (_gpt2(merges=("a c",)), InvalidArgumentError, "no tokenizer can be built"),
        (_gpt2(merges=3), InvalidArgumentError, "merges is 3; expected an array of strings"),
        (_gpt2(tokens=("a", "a")), InvalidArgumentError, "token_type is .*; expected 2 numbers, as many as tokens"),
        (_gpt2(tokens=("a", "b", "1", "2", "Ġ", "ab", "Ġa", "12", "a")), InvalidArgumentError, "'a' is given twice"),
        (
            _gpt2(token_type=np.array([9] * 9)),
            InvalidArgumentError,
            "token_type has values from 9 to 9",
        ),
        (_gpt2(bos_token_id=9, add_bos_token=True), InvalidArgumentError, "bos_token_id is 9; expected .* from 0 to 8"),
        (_gpt2(tokens=(), token_type=np.empty(0)), InvalidArgumentError, "there are no tokens"),
        (_sentence_piece(scores=np.zeros(3, np.float32)), InvalidArgumentError, "scores is .*; expected 275 numbers"),
        (_sentence_piece(scores=np.full(275, np.nan)), InvalidArgumentError, "a score is not a finite number"),
    ],
)
def test_vocabularies_that_are_refused(metadata: dict[str, Value], kind: type[TriuneError], message: str) -> None:
    with pytest.raises(kind, match=message):
        build_tokenizer(metadata, "model")


def test_a_tokenizer_that_knows_more_than_the_model() -> None:
    backend = build_tokenizer(_gpt2(), "model")
    with pytest.raises(InvalidArgumentError, match="model: the tokenizer gives ids up to 8; the embedding has 8 rows"):
        Tokenizer(backend, SpecialTokens(), 8, "model")
    tokenizer = Tokenizer(backend, SpecialTokens(), 9, "model")
    with pytest.raises(InvalidArgumentError, match="the token 9 is not in the vocabulary of 9"):
        tokenizer.decode([9])
    with pytest.raises(InvalidArgumentError, match="the text cannot be encoded as UTF-8"):
        tokenizer.encode("a\ud800")
