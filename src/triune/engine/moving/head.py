"""Reads the head of an exported sequence, which is a JSON object (see `moving.wire`). A wrong value raises
InvalidArgumentError.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from triune.core.datatypes import DataType
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import RandomState
from triune.engine.structured.constraint import Constraint, ConstraintKind
from triune.engine.weights.fields import Fields

_MAX_ARRAYS: Final = 8192

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "bf16": DataType.BF16.dtype,
}
"""The numpy types of keys and values, by the names in the head."""

_KINDS: Final[Mapping[str, ConstraintKind]] = {
    each: each for each in ("json_schema", "json_object", "regex", "lark", "gbnf", "choice")
}
_NUMBERS: Final = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


def read_cache(head: Fields) -> tuple[np.dtype[Any], list[tuple[int, int]]]:
    """Read the type of keys and values, and for each array the number of heads and their size."""
    cache = head.inner("cache")
    if cache is None:
        raise head.wrong("cache", "an object")
    dtype = DTYPES[cache.choice("type", {name: name for name in DTYPES})]
    given = cache.items("shapes")
    if given is None or len(given) > _MAX_ARRAYS:
        raise cache.wrong("shapes", f"at most {_MAX_ARRAYS} pairs of heads and their size")
    shapes: list[tuple[int, int]] = []
    for each in given:
        pair = cast("list[object]", each) if isinstance(each, list) else []
        if len(pair) != 2 or not all(type(size) is int and 0 < size <= 1 << 16 for size in pair):
            raise cache.wrong("shapes", "pairs of heads and their size, each from 1 to 65536")
        shapes.append(cast("tuple[int, int]", tuple(pair)))
    cache.refuse_unread()
    return dtype, shapes


def read_parameters(head: Fields) -> SamplingParameters:
    """Read the sampling parameters."""
    given = head.inner("sampling")
    if given is None:
        raise head.wrong("sampling", "an object")
    bias: dict[int, float] = {}
    for each in given.items("logit_bias") or ():
        pair = cast("list[object]", each) if isinstance(each, list) else []
        if len(pair) != 2 or type(pair[0]) is not int or type(pair[1]) not in (int, float):
            raise given.wrong("logit_bias", "pairs of a token and a number")
        bias[pair[0]] = float(cast("float", pair[1]))
    parameters = SamplingParameters(
        **{name: given.number(name) for name in _NUMBERS},
        top_k=given.whole("top_k", least=0),
        seed=given.whole_or_none("seed", least=-(1 << 63), most=(1 << 64) - 1),
        num_logprobs=given.whole_or_none("num_logprobs"),
        logit_bias=bias,
    )
    given.refuse_unread()
    return parameters


def read_random(head: Fields) -> RandomState:
    """Read the state of the random number generator."""
    given = head.items("random") or []
    texts = [each for each in given if isinstance(each, str) and 0 < len(each) <= 32]
    try:
        state, increment = (int(each, 16) for each in texts)
    except ValueError:
        raise head.wrong("random", "two whole numbers of 128 bits, as digits of base 16") from None
    return RandomState(state, increment)


def read_adapter_name(head: Fields) -> tuple[str | None, bytes]:
    """Read the name and the digest of the LoRA adapter; None and b"" if there is none."""
    given = head.items("adapter")
    if given is None:
        if head.get("adapter") is not None:
            raise head.wrong("adapter", "null, or a name and a digest")
        return None, b""
    if len(given) != 2 or not all(isinstance(each, str) for each in given):
        raise head.wrong("adapter", "a name and a digest")
    name, digest = cast("list[str]", given)
    return name, _bytes_of(head, "adapter", digest)


def read_constraint(head: Fields) -> Constraint | None:
    """Read the answer's constraint; None if it has none."""
    given = head.items("constraint")
    if given is None:
        if head.get("constraint") is not None:
            raise head.wrong("constraint", "null, or a kind and a text")
        return None
    kind, text = given if len(given) == 2 else (None, None)
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(text, str):
        raise head.wrong("constraint", f"one of {', '.join(_KINDS)}, and a text")
    return Constraint(_KINDS[kind], text)


def read_stops(head: Fields) -> tuple[str, ...]:
    """Read the stop texts."""
    given = head.items("stop")
    if given is None or not all(isinstance(each, str) for each in given):
        raise head.wrong("stop", "texts")
    return tuple(cast("list[str]", given))


def read_name(head: Fields, name: str) -> str:
    """Read a text of 1 to 1024 characters."""
    text = head.text(name)
    if not 0 < len(text) <= 1024:
        raise head.wrong(name, "a text of 1 to 1024 characters")
    return text


def read_digits(head: Fields, name: str) -> bytes:
    """Read bytes that are written as hexadecimal digits."""
    return _bytes_of(head, name, head.text(name))


def _bytes_of(head: Fields, name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text[:256])
    except ValueError:
        raise head.wrong(name, "digits of base 16") from None
