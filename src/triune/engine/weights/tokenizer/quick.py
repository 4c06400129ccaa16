"""Decides whether a tokenizer is quick on every short text, so that it may run on the event loop.

A tokenizer file may hold any regular expression, which may take seconds for a text of a few characters, and
replacements that make a text arbitrarily long.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, cast

import tokenizers

from triune.engine.weights.tokenizer.splits import SPLITS

_KNOWN: Final = frozenset(pattern for split in SPLITS.values() for pattern in split.patterns)
"""Regular expressions of published models. Their time is proportional to the length of the text."""

_MAX_GROWTH: Final = 16
"""The largest number of characters by which a pattern may be replaced."""


def is_quick(backend: tokenizers.Tokenizer) -> bool:
    """Whether the tokenizer has only known regular expressions, and no long replacements."""
    return all(_is_quick(each) for each in _steps(backend))


def _steps(backend: tokenizers.Tokenizer) -> Iterator[dict[str, Any]]:
    """All normalizers, pre-tokenizers and decoders, as they are written in a tokenizer's file."""
    for part in (backend.normalizer, backend.pre_tokenizer, backend.decoder):
        if part is not None:
            yield from _objects(json.loads(part.__getstate__()))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        yield found
        for each in found.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _objects(each)


def _is_quick(step: dict[str, Any]) -> bool:
    if "Regex" in step and step["Regex"] not in _KNOWN:
        return False
    return all(len(step.get(name) or "") <= _MAX_GROWTH for name in ("content", "prepend"))
