"""Texts become tokens, and those of many texts a packed graph's inputs."""

import numpy as np
import pytest

from support.scripted import VOCAB, byte_tokenizer
from triune.core.errors import InvalidArgumentError
from triune.engine.encoder import TextEncoder, pack
from triune.engine.encoder_steps import MAX_TOKENS, steps_of


def encoder(max_tokens: int = 8) -> TextEncoder:
    return TextEncoder(byte_tokenizer(), max_tokens, VOCAB, "sentence_embedding", 32)


def test_texts_bytes_and_ids_are_read() -> None:
    text, same, ids = encoder().read(["abc", b"abc", [5, 6]])
    assert text.tolist() == same.tolist() == encoder().tokenizer.encode("abc")
    assert (ids.tolist(), ids.dtype) == ([5, 6], np.int64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", ""], "input 1 has 0 characters; the model reads 1 to 8 tokens"),
        ([[]], "input 0 has 0 tokens; the model reads 1 to 8"),
        (["a" * 9], "input 0 has 9 tokens; the model reads 1 to 8"),
        ([list(range(9))], "input 0 has 9 tokens; the model reads 1 to 8"),
        (["a" * 3000], "input 0 has 3000 characters; .* at most 2048 characters"),
        ([b"\xff"], "input 0 is not UTF-8: invalid start byte at byte 0"),
        (["\ud800"], "half a surrogate pair"),
        ([[1, -1]], "input 0 holds the token -1; the model's tokens are 0 to"),
        ([[1, VOCAB]], f"input 0 holds the token {VOCAB}"),
        ([[1 << 70]], "input 0 is neither a text nor ids"),
        ([None], "input 0 is neither a text nor ids"),
    ],
)
def test_what_cannot_be_read_is_named(given: list[object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        encoder().read(given)


def test_texts_of_like_length_run_together() -> None:
    assert list(steps_of([3, 10, 4, 9, 100], lambda: 20)) == [[4], [1, 3], [2, 0]]
    assert list(steps_of([5] * 7, lambda: 20)) == [[0, 1, 2, 3], [4, 5, 6]]
    lengths = np.random.default_rng(1).integers(1, 600, 500).tolist()
    steps = list(steps_of(lengths, lambda: MAX_TOKENS))
    assert sorted(at for step in steps for at in step) == list(range(500))
    assert all(len(step) == 1 or len(step) * max(lengths[at] for at in step) <= MAX_TOKENS for step in steps)


def test_packed_texts() -> None:
    found = {name: array.tolist() for name, array in pack([np.array([7, 8]), np.array([9])]).items()}
    assert found == {
        "input_ids": [7, 8, 9],
        "position_ids": [0, 1, 0],
        "token_type_ids": [0, 0, 0],
        "token_rows": [[0, 1], [2, 0]],
        "token_places": [0, 1, 2],
        "lengths": [2, 1],
    }
