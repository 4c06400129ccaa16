"""Tokenizer files that make the library slow, or panic, on some short texts."""

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from triune.core.errors import InvalidArgumentError
from triune.engine.weights.config import SpecialTokens
from triune.engine.weights.tokenizer.growth import Growth
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
    assert not tokenizer(normalizer=normalizers.Replace("a", "a" * 100)).is_quick
    assert not tokenizer(normalizer=normalizers.Prepend("a" * 100)).is_quick
    assert not tokenizer(normalizer=normalizers.Replace(Regex(BACKTRACKING), "")).is_quick
    assert not tokenizer(decoder=decoders.Replace("a", "a" * 100)).is_quick


TENFOLD = normalizers.Replace("a", "a" * 10)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (TENFOLD, 10),
        (normalizers.Sequence([TENFOLD, TENFOLD]), 100),
        (normalizers.Replace(Regex(" {2,}"), "▁"), 4),
        (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), 12),
        (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.NFD()]), 11),
        (normalizers.Sequence([normalizers.ByteLevel(), normalizers.ByteLevel()]), 4),
    ],
)
def test_how_much_longer_a_text_becomes(step: normalizers.Normalizer, factor: float) -> None:
    assert Growth.of(tokenizer(normalizer=step).backend, "m").factor == factor


@pytest.mark.parametrize(
    "step",
    [
        normalizers.Sequence([TENFOLD] * 3),
        normalizers.Replace("a", "b" * 1000),
        normalizers.Replace(Regex(""), "b" * 1000),
        normalizers.Prepend("b" * 1000),
        normalizers.Sequence([normalizers.ByteLevel()] * 9),
    ],
)
def test_what_makes_texts_too_long_is_refused(step: normalizers.Normalizer) -> None:
    with pytest.raises(InvalidArgumentError, match="m: the tokenizer may make a text .* at most 256 is accepted"):
        tokenizer(normalizer=step)


def test_so_are_pre_tokenizers_and_decoders() -> None:
    with pytest.raises(InvalidArgumentError, match="a text 512 times as long"):
        tokenizer(pre_tokenizers.Sequence([pre_tokenizers.ByteLevel()] * 9))
    with pytest.raises(InvalidArgumentError, match="an answer 1e\\+03 times as long"):
        tokenizer(decoder=decoders.Replace(".", "b" * 1000))


def test_a_text_of_which_much_could_be_made_is_refused_by_its_length() -> None:
    made = tokenizer(normalizer=normalizers.Sequence([TENFOLD, TENFOLD]))
    assert len(made.encode("a")) == 1
    for encode in (made.encode, lambda text: made.encode_all(["a", text])):
        with pytest.raises(InvalidArgumentError, match="has 41944 characters.*100 bytes of each: at most 41943"):
            encode("b" * 41_944)
    assert tokenizer().encode("b" * 41_944) == [1]


def test_templates_of_many_tokens_are_refused() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    for template in ("[UNK] " * 300 + "$A", "$A $A"):
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("[UNK]", 1)])
        with pytest.raises(InvalidArgumentError, match="add 300 tokens to texts|2 places for 1 texts"):
            Tokenizer(backend, SpecialTokens(), 2, "m")
    backend.post_processor = processors.TemplateProcessing(single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 1)])
    assert Tokenizer(backend, SpecialTokens(), 2, "m").encode("a") == [1, 0, 1]


def test_a_template_with_a_token_that_it_lacks_is_refused() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.post_processor = processors.TemplateProcessing(single="[UNK] $A", special_tokens=[("[UNK]", 1)])
    written = backend.to_str().replace('{"SpecialToken":{"id":"[UNK]"', '{"SpecialToken":{"id":"("', 1)
    assert written != backend.to_str()
    with pytest.raises(InvalidArgumentError, match=r"adds the special token '\(', which it does not define"):
        Tokenizer(tokenizers.Tokenizer.from_str(written), SpecialTokens(), 2, "m")


def test_a_token_of_a_long_text_is_refused() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"a" * 70_000: 0}, unk_token="a"))
    with pytest.raises(InvalidArgumentError, match="a token of 70000 bytes; at most 65536"):
        Tokenizer(backend, SpecialTokens(), 2, "m")
