"""A running answer as bytes, which another server reads: versioned, checksummed, and with checked sizes.

All numbers are little-endian:

| bytes | |
| --- | --- |
| 8 | `TRIUNESQ` |
| 4 | the version of this form, 1 |
| 4 | the size of the head |
| 8 | the size of the body |
| 32 | BLAKE2b of all the rest: the 24 bytes before it, the head and the body |
| | the head: a JSON object |
| | the body: the prompt's and the answer's tokens as INT32, then keys and values: [tokens, heads, size] for the keys, \
then the values of each layer |
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields
from typing import Any, Final, cast

import numpy as np

from triune.config.parse import without_duplicates
from triune.core.datatypes import Array, DataType
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, UnsupportedError
from triune.engine.generation import Generation
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import RandomState
from triune.engine.sequence import Ending
from triune.engine.structured.constraint import Constraint, ConstraintKind
from triune.engine.weights.fields import Fields

MAGIC: Final = b"TRIUNESQ"
VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sIIQ")
_CHECKSUM_BYTES: Final = 32
_MAX_HEAD_BYTES: Final = 4 << 20
_MAX_ARRAYS: Final = 8192

_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "bf16": DataType.BF16.dtype,
}
_KINDS: Final[Mapping[str, ConstraintKind]] = {
    each: each for each in ("json_schema", "json_object", "regex", "lark", "gbnf", "choice")
}
_NUMBERS: Final = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class MovedAnswer:
    """An answer that another server goes on with.

    Attributes:
        model: the name of the model where it came from.
        weights: names the model's weights (`weights.key`).
        adapter: names the LoRA adapter's weights; empty without one.
        request: what the client asked for, without its prompt but with its id.
        state: the sequence.
    """

    model: str
    weights: bytes
    adapter: bytes
    request: Generation
    state: SequenceState


def encode(answer: MovedAnswer) -> list[bytes]:
    """The answer as bytes, in parts. Keys and values are written in the smallest type that holds them exactly."""
    state, request = answer.state, answer.request
    kind, arrays = _narrowed(state.cached.arrays)
    parameters = {each.name: getattr(state.parameters, each.name) for each in fields(SamplingParameters)}
    parameters["logit_bias"] = [[token, bias] for token, bias in state.parameters.logit_bias.items()]
    constraint = request.constraint
    head = json.dumps(
        {
            "id": request.id,
            "model": answer.model,
            "weights": answer.weights.hex(),
            "adapter": [state.adapter, answer.adapter.hex()] if state.adapter is not None else None,
            "prompt_tokens": len(state.prompt),
            "answer_tokens": len(state.answer),
            "cached_tokens": state.cached.num_tokens,
            "cache": {"type": kind, "shapes": [each.shape[1:] for each in arrays]},
            "random": [f"{each:x}" for each in state.random],
            "sampling": parameters,
            "max_tokens": state.ending.max_tokens,
            "min_tokens": state.ending.min_tokens,
            "ends": sorted(state.ending.stop_tokens),
            "priority": state.priority,
            "stop": request.stop,
            "stop_tokens": sorted(request.stop_tokens),
            "is_stop_included": request.is_stop_included,
            "is_end_ignored": request.is_end_ignored,
            "constraint": None if constraint is None else [constraint.kind, constraint.text],
        }
    ).encode()
    tokens = np.array([*state.prompt, *state.answer], "<i4").tobytes()
    body = [tokens, *(each.tobytes() for each in arrays)]
    prefix = _PREFIX.pack(MAGIC, VERSION, len(head), sum(map(len, body)))
    return [prefix + _checksum(prefix, head, *body), head, *body]


def decode(data: memoryview) -> MovedAnswer:
    """Read what `encode` wrote. Arrays are views of `data`, but for FP32 ones of another order.

    Raises:
        InvalidArgumentError: the bytes are broken, or a value is out of range.
        UnsupportedError: they are of a version that is not known here.
        PayloadTooLargeError: the head is too long.
    """
    head, body = _parts(data)
    try:
        document = cast("object", json.loads(str(head, "utf-8"), object_pairs_hook=without_duplicates))
        # Python's parser takes escapes of lone surrogates, which no text can hold.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _broken(f"its head is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise _broken("its head is no JSON object")
    head_fields = Fields(cast("dict[str, object]", document), "the exported sequence")
    num_prompt = head_fields.whole("prompt_tokens")
    num_answer = head_fields.whole("answer_tokens", least=0)
    num_cached = head_fields.whole("cached_tokens", least=0)
    dtype, shapes = _cache(head_fields)
    sizes = [num_cached * math.prod(shape) * dtype.itemsize for shape in shapes]
    expected = 4 * (num_prompt + num_answer) + sum(sizes)
    if len(body) != expected or (num_cached and not shapes):
        raise _broken(f"its body has {len(body)} bytes; {expected} are needed by its head")
    tokens = np.frombuffer(body[: 4 * (num_prompt + num_answer)], "<i4").tolist()
    arrays: list[Array] = []
    at = 4 * len(tokens)
    for shape, size in zip(shapes, sizes, strict=True):
        arrays.append(np.frombuffer(body[at : at + size], dtype).reshape(num_cached, *shape))
        at += size
    name, adapter = _adapter(head_fields)
    stop_tokens = frozenset(head_fields.ids("stop_tokens"))
    request = Generation(
        (),
        stop=_stops(head_fields),
        stop_tokens=stop_tokens,
        is_stop_included=head_fields.flag("is_stop_included"),
        is_end_ignored=head_fields.flag("is_end_ignored"),
        constraint=_constraint(head_fields),
        sampling=_parameters(head_fields),
        max_tokens=head_fields.whole("max_tokens"),
        min_tokens=head_fields.whole("min_tokens", least=0),
        priority=head_fields.whole("priority", least=-(1 << 63), most=(1 << 63) - 1),
        adapter=name,
        id=_name(head_fields, "id"),
    )
    state = SequenceState(
        tokens[:num_prompt],
        tokens[num_prompt:],
        request.sampling,
        _random(head_fields),
        Ending(head_fields.whole("max_tokens"), frozenset(head_fields.ids("ends")), request.min_tokens),
        request.priority,
        name,
        KeysAndValues(num_cached, arrays),
    )
    answer = MovedAnswer(_name(head_fields, "model"), _hex(head_fields, "weights"), adapter, request, state)
    head_fields.refuse_unread()
    return answer


def _parts(data: memoryview) -> tuple[memoryview, memoryview]:
    begin = _PREFIX.size + _CHECKSUM_BYTES
    if len(data) < begin:
        raise _broken(f"it has {len(data)} bytes; its first part alone has {begin}")
    magic, version, head_bytes, body_bytes = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise _broken(f"it does not begin with '{MAGIC.decode()}'")
    if version != VERSION:
        raise UnsupportedError(
            f"the exported sequence has version {version} of the form; this server reads version {VERSION}: use "
            "servers of the same version"
        )
    if head_bytes > _MAX_HEAD_BYTES:
        raise PayloadTooLargeError(f"the exported sequence has a head of {head_bytes} bytes; {_MAX_HEAD_BYTES} may be")
    if begin + head_bytes + body_bytes != len(data):
        raise _broken(f"it has {len(data)} bytes; by its sizes it should have {begin + head_bytes + body_bytes}")
    head, body = data[begin : begin + head_bytes], data[begin + head_bytes :]
    if _checksum(data[: _PREFIX.size], head, body) != bytes(data[_PREFIX.size : begin]):
        raise _broken("its checksum is wrong: bytes were changed on the way")
    return head, body


def _checksum(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _narrowed(arrays: Seq[Array]) -> tuple[str, Seq[Array]]:
    """The smallest of the types that hold the numbers of FP32 arrays exactly, and the arrays in it."""
    if not arrays:
        return "fp32", arrays
    if not any((each.view(np.uint32) & 0xFFFF).any() for each in arrays):
        return "bf16", [each.astype(_DTYPES["bf16"]) for each in arrays]
    halves: list[Array] = []
    for each in arrays:
        with np.errstate(over="ignore"):
            half = each.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), each):
            return "fp32", arrays
        halves.append(half)
    return "fp16", halves


def _cache(head: Fields) -> tuple[np.dtype[Any], list[tuple[int, int]]]:
    cache = head.inner("cache")
    if cache is None:
        raise head.wrong("cache", "an object")
    dtype = _DTYPES[cache.choice("type", {name: name for name in _DTYPES})]
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


def _parameters(head: Fields) -> SamplingParameters:
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


def _random(head: Fields) -> RandomState:
    given = head.items("random") or []
    texts = [each for each in given if isinstance(each, str) and 0 < len(each) <= 32]
    try:
        state, increment = (int(each, 16) for each in texts)
    except ValueError:
        raise head.wrong("random", "two whole numbers of 128 bits, as digits of base 16") from None
    return RandomState(state, increment)


def _adapter(head: Fields) -> tuple[str | None, bytes]:
    given = head.items("adapter")
    if given is None:
        if head.get("adapter") is not None:
            raise head.wrong("adapter", "null, or a name and a digest")
        return None, b""
    if len(given) != 2 or not all(isinstance(each, str) for each in given):
        raise head.wrong("adapter", "a name and a digest")
    name, digest = cast("list[str]", given)
    return name, _bytes_of(head, "adapter", digest)


def _constraint(head: Fields) -> Constraint | None:
    given = head.items("constraint")
    if given is None:
        if head.get("constraint") is not None:
            raise head.wrong("constraint", "null, or a kind and a text")
        return None
    if len(given) != 2 or given[0] not in _KINDS or not isinstance(given[1], str):
        raise head.wrong("constraint", f"one of {', '.join(_KINDS)}, and a text")
    return Constraint(_KINDS[cast("str", given[0])], given[1])


def _stops(head: Fields) -> tuple[str, ...]:
    given = head.items("stop")
    if given is None or not all(isinstance(each, str) for each in given):
        raise head.wrong("stop", "texts")
    return tuple(cast("list[str]", given))


def _name(head: Fields, name: str) -> str:
    text = head.text(name)
    if not 0 < len(text) <= 1024:
        raise head.wrong(name, "a text of 1 to 1024 characters")
    return text


def _hex(head: Fields, name: str) -> bytes:
    return _bytes_of(head, name, head.text(name))


def _bytes_of(head: Fields, name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text[:256])
    except ValueError:
        raise head.wrong(name, "digits of base 16") from None


def _broken(why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the exported sequence cannot be read: {why}; export it again")
