"""Tokenizer files that make the library slow, or panic, on some short texts."""

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.tokenizer.splits import SPLITS
from triune.engine.weights.tokenizer.tokenizer import Tokenizer

BACKTRACKING = "(a+)+$"
PANICS_ON = "a" * 60 + "b"


def tokenizer(
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    normalizer: normalizers.Normalizer | None = None,
    decoder: decoders.Decoder | None = None,
) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    for name, part in (("pre_tokenizer", pre_tokenizer), ("normalizer", normalizer), ("decoder", decoder)):
        if part is not None:
            setattr(backend, name, part)
    return Tokenizer(backend, SpecialTokens(), 2, "m")


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


@pytest.mark.parametrize("text", [PANICS_ON, " ".join([PANICS_ON] * 5)], ids=["short", "long"])
def test_a_text_on_which_the_library_panics_is_refused(text: str) -> None:
    made = tokenizer(split(BACKTRACKING))
    with pytest.raises(InvalidArgumentError, match="the model's tokenizer fails on the text: .*; send another text"):
        made.encode(text)
    with pytest.raises(InvalidArgumentError, match="fails on the text"):
        made.encode_all(["a", text])
    assert made.encode("a") == [0]


@pytest.mark.parametrize("pattern", [pattern for each in SPLITS.values() for pattern in each.patterns])
def test_published_patterns_are_quick(pattern: str) -> None:
    assert tokenizer(pre_tokenizers.Sequence([split(pattern), pre_tokenizers.ByteLevel(use_regex=False)])).is_quick


def test_what_a_file_may_hold_is_not_quick_unless_known() -> None:
    assert tokenizer(pre_tokenizers.Whitespace(), normalizers.Lowercase(), decoders.Replace("▁", " ")).is_quick
    assert not tokenizer(split(BACKTRACKING)).is_quick
    assert not tokenizer(pre_tokenizers.Sequence([pre_tokenizers.Digits(), split(BACKTRACKING)])).is_quick
    assert not tokenizer(normalizer=normalizers.Replace("a", "a" * 1000)).is_quick
    assert not tokenizer(normalizer=normalizers.Prepend("a" * 1000)).is_quick
    assert not tokenizer(normalizer=normalizers.Replace(Regex(BACKTRACKING), "")).is_quick
    assert not tokenizer(decoder=decoders.Replace("a", "a" * 1000)).is_quick
