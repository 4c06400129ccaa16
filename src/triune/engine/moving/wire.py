"""Write a running answer as bytes that another server reads: with a version, a checksum, and checked sizes.

All numbers are little-endian:

| bytes | |
| --- | --- |
| 8 | `TRIUNESQ` |
| 4 | the version of this form, 1 |
| 4 | the size of the head |
| 8 | the size of the body |
| 32 | BLAKE2b of all the rest: the 24 bytes before it, the head and the body |
| | the head: a JSON object |
| | the body: the source's, the prompt's and the answer's tokens as INT32, then keys and values: for each layer its \
keys, then its values, [tokens, heads, size] each |
"""

import hashlib
import json
import math
import struct
from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields
from typing import Final, cast

import numpy as np

from triune.config.parse import without_duplicates
from triune.core.datatypes import CHUNK_ELEMENTS, Array
from triune.core.errors import InvalidArgumentError, PayloadTooLargeError, UnsupportedError
from triune.engine.generation import Generation
from triune.engine.moving.head import (
    DTYPES,
    read_adapter_name,
    read_cache,
    read_constraint,
    read_digits,
    read_name,
    read_parameters,
    read_random,
    read_stops,
)
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sequence import Ending
from triune.engine.weights.fields import Fields

MAGIC: Final = b"TRIUNESQ"
VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sIIQ")
_CHECKSUM_BYTES: Final = 32
_MAX_HEAD_BYTES: Final = 1 << 20
_MAX_MARKS: Final = 1 << 16
"""The largest number of commas, opening brackets and opening braces in the head; a head with more is refused. JSON is
parsed in one call, during which no other thread runs.
"""

MAX_TOKENS: Final = 1 << 20
"""The most tokens of a prompt, of an answer, and of the text that an encoder reads, each."""

_VALUE_BYTES: Final = 64
"""An estimate, in bytes, of the memory that a token or a value of the head takes as a Python object."""


@dataclass(frozen=True, slots=True)
class MovedAnswer:
    """An answer that another server is to continue.

    Attributes:
        model: the model's name on the server where the answer began.
        weights: identifies the model's weights (`weights.key`).
        adapter: identifies the LoRA adapter's weights; empty without an adapter.
        request: the client's request, without its prompt but with its id.
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
            # An older server refuses unknown fields. Leave `source_tokens` out if it is 0, so that such a server reads
            # the rest.
            **({"source_tokens": len(state.source)} if state.source else {}),
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
    tokens = [*state.source, *state.prompt, *state.answer]
    parts = (np.array(tokens[at : at + CHUNK_ELEMENTS], "<i4") for at in range(0, len(tokens), CHUNK_ELEMENTS))
    body = [b"".join(each.tobytes() for each in parts), *(each.tobytes() for each in arrays)]
    prefix = _PREFIX.pack(MAGIC, VERSION, len(head), sum(map(len, body)))
    return [prefix + _checksum(prefix, head, *body), head, *body]


def memory_of(num_bytes: int) -> int:
    """The most memory, in bytes, that an answer of `num_bytes` encoded bytes takes while it is read and its keys and
    values are written to the cache.
    """
    # Add up the encoded bytes, twice as many bytes for keys and values of 16 bits that become FP32, and a Python object
    # for each value of the head and each token.
    values = min(_MAX_MARKS, num_bytes) + min(3 * MAX_TOKENS, num_bytes // 4)
    return 3 * num_bytes + _VALUE_BYTES * values


def decode(data: memoryview) -> MovedAnswer:
    """Read what `encode` wrote. Arrays are views of `data`, except FP32 arrays whose byte order differs from this
    machine's.

    Raises:
        InvalidArgumentError: the bytes are broken, or a value is out of range.
        UnsupportedError: the bytes have a version of the format that this server does not know.
        PayloadTooLargeError: the head is too long.
    """
    head, body = _parts(data)
    text = bytes(head)
    if (num_marks := sum(map(text.count, (b",", b"[", b"{")))) > _MAX_MARKS:
        raise PayloadTooLargeError(f"the head of the exported sequence has {num_marks} values; {_MAX_MARKS} may be")
    try:
        document = cast("object", json.loads(str(text, "utf-8"), object_pairs_hook=without_duplicates))
        # Encoding the document again refuses escapes of lone surrogates, which Python's parser accepts and UTF-8 cannot
        # encode.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _broken(f"its head is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise _broken("its head is no JSON object")
    head_fields = Fields(cast("dict[str, object]", document), "the exported sequence")
    num_source = head_fields.whole("source_tokens", 0, least=0, most=MAX_TOKENS)
    num_prompt = head_fields.whole("prompt_tokens", most=MAX_TOKENS)
    num_answer = head_fields.whole("answer_tokens", least=0, most=MAX_TOKENS)
    num_cached = head_fields.whole("cached_tokens", least=0)
    dtype, shapes = read_cache(head_fields)
    sizes = [num_cached * math.prod(shape) * dtype.itemsize for shape in shapes]
    num_tokens = num_source + num_prompt + num_answer
    expected = 4 * num_tokens + sum(sizes)
    if len(body) != expected or (num_cached and not shapes):
        raise _broken(f"its body has {len(body)} bytes; {expected} are needed by its head")
    ids = np.frombuffer(body[: 4 * num_tokens], "<i4")
    tokens = [each for at in range(0, len(ids), CHUNK_ELEMENTS) for each in ids[at : at + CHUNK_ELEMENTS].tolist()]
    arrays: list[Array] = []
    at = 4 * num_tokens
    for shape, size in zip(shapes, sizes, strict=True):
        flat = np.frombuffer(body[at : at + size], dtype)
        # NaN and infinities are refused here: in a step that reads such keys and values, it would look as if the model
        # were at fault.
        if not all(
            np.isfinite(flat[begin : begin + CHUNK_ELEMENTS]).all() for begin in range(0, len(flat), CHUNK_ELEMENTS)
        ):
            raise _broken("its keys and values hold NaN or infinity")
        arrays.append(flat.reshape(num_cached, *shape))
        at += size
    name, adapter = read_adapter_name(head_fields)
    stop_tokens = frozenset(head_fields.ids("stop_tokens"))
    request = Generation(
        (),
        stop=read_stops(head_fields),
        stop_tokens=stop_tokens,
        is_stop_included=head_fields.flag("is_stop_included"),
        is_end_ignored=head_fields.flag("is_end_ignored"),
        constraint=read_constraint(head_fields),
        sampling=read_parameters(head_fields),
        max_tokens=head_fields.whole("max_tokens"),
        min_tokens=head_fields.whole("min_tokens", least=0),
        priority=head_fields.whole("priority", least=0, most=(1 << 63) - 1),
        adapter=name,
        id=read_name(head_fields, "id"),
    )
    source, tokens = tokens[:num_source], tokens[num_source:]
    state = SequenceState(
        tokens[:num_prompt],
        tokens[num_prompt:],
        request.sampling,
        read_random(head_fields),
        Ending(head_fields.whole("max_tokens"), frozenset(head_fields.ids("ends")), request.min_tokens),
        request.priority,
        name,
        KeysAndValues(num_cached, arrays),
        tuple(source),
    )
    answer = MovedAnswer(read_name(head_fields, "model"), read_digits(head_fields, "weights"), adapter, request, state)
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
    """The smallest type that represents the numbers of FP32 arrays exactly, and the arrays in that type."""
    if not arrays:
        return "fp32", arrays
    if not any((each.view(np.uint32) & 0xFFFF).any() for each in arrays):
        return "bf16", [each.astype(DTYPES["bf16"]) for each in arrays]
    halves: list[Array] = []
    for each in arrays:
        with np.errstate(over="ignore"):
            half = each.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), each):
            return "fp32", arrays
        halves.append(half)
    return "fp16", halves


def _broken(why: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the exported sequence cannot be read: {why}; export it again")
