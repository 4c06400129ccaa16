"""The regular expressions with which vocabularies of GPT-2's kind split a text into pieces before letters are merged,
by their names in GGUF files.

Source: `LLAMA_VOCAB_PRE_TYPE` in llama.cpp's llama-vocab.cpp, and the tokenizer.json of the models that it names.
"""
# ruff: noqa: RUF001  The patterns have signs of other scripts on purpose.

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Split:
    """A way to split text into pieces, in each of which BPE then merges letters to tokens.

    Attributes:
        patterns: regular expressions (Oniguruma), applied one after another. Each splits a text into its matches and
            the parts between them; the next one splits each of these parts.
        ignores_merges: whether a piece that is a token as a whole becomes that token, even if the merges would give
            others.
        adds_bos: whether the token bos is put before a text, if the GGUF file does not say whether it is.
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False


_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT_FORMS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(letters: str, digits: str, *, tail: str = r"[\r\n]*", spaces: str = _SPACES) -> str:
    """The pattern of GPT-4 and of many later models: a word may begin with one character that is no letter, digit or
    line end, and digits are pieces of their own.
    """
    signs = rf" ?[^\s{letters}\p{{N}}]+{tail}"
    return rf"{_SHORT_FORMS}|[^\r\n\p{{L}}\p{{N}}]?[{letters}]+|{digits}|{signs}|{spaces}"


def _cased(digits: str, short_forms: str) -> str:
    """The pattern of GPT-4o and Tekken, in which a word also ends before a capital letter."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    first = r"[^\r\n\p{L}\p{N}]?"
    signs = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
    return rf"{first}{upper}*{lower}+{short_forms}|{first}{upper}+{lower}*{short_forms}|{digits}|{signs}|{_SPACES}"


_LLAMA3: Final = _words(r"\p{L}", r"\p{N}{1,3}")
_QWEN2: Final = _words(r"\p{L}", r"\p{N}")
_SEED: Final = rf"{_SHORT_FORMS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"

_BY_NAMES: Final[Mapping[tuple[str, ...], Split]] = {
    ("default",): Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "mellum", "modern-bert"): Split(
        (_GPT2,)
    ),
    ("gigachat", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "a.x-4.0"): Split((_GPT2,)),
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"): Split(
        (_LLAMA3,), ignores_merges=True, adds_bos=True
    ),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): Split((_LLAMA3,)),
    ("glm4",): Split((_LLAMA3,), ignores_merges=True),
    ("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2", "solar-open"): Split((_QWEN2,)),
    ("qwen35",): Split((_words(r"\p{L}\p{M}", r"\p{N}"),)),
    ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"): Split((r"\p{N}", _GPT2)),
    ("falcon",): Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    ("deepseek-coder",): Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    ("deepseek-v3", "hunyuan-dense"): Split(
        (
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            rf"""| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}""",
        )
    ),
    ("tekken",): Split((_cased(r"\p{N}", ""),), ignores_merges=True, adds_bos=True),
    ("gpt-4o", "llama4", "minimax-m2"): Split((_cased(r"\p{N}{1,3}", f"{_SHORT_FORMS}?"),)),
    ("seed-coder",): Split((_SEED,)),
    ("bloom", "gpt3-finnish", "poro-chat"): Split((_BLOOM,)),
    ("viking",): Split((_BLOOM, r"\p{N}")),
}


def _each() -> Iterator[tuple[str, Split]]:
    for names, split in _BY_NAMES.items():
        for name in names:
            yield name, split


SPLITS: Final[Mapping[str, Split]] = dict(_each())
"""The ways to split a text, by the name that GGUF files state in `tokenizer.ggml.pre`."""
