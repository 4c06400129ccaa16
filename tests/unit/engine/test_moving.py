"""An answer that moves from one engine to another, as bytes: the client reads what it would have read from one."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.copying import SCRIPT, CopyingDecoder
from support.examples import examples
from support.scripted import EOS, VOCAB, scripted_engine
from triune.core.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PayloadTooLargeError,
    TriuneError,
    UnavailableError,
    UnsupportedError,
)
from triune.engine.engine import Engine
from triune.engine.generation import Delta, Generation
from triune.engine.moving.state import KeysAndValues, SequenceState
from triune.engine.moving.wire import MovedAnswer, decode, encode
from triune.engine.sampling.parameters import SamplingParameters
from triune.engine.sampling.sampler import RandomState
from triune.engine.sequence import Ending, FinishReason
from triune.engine.structured.constraint import Constraint

GREEDY = SamplingParameters(temperature=0)
LENGTH = 30


@asynccontextmanager
async def engines() -> AsyncIterator[tuple[Engine, Engine, CopyingDecoder]]:
    """Two engines, and the decoder of the first one."""
    decoder = CopyingDecoder()
    async with (
        scripted_engine(decoder, weights_key=b"same") as here,
        scripted_engine(CopyingDecoder(num_blocks=50, block_size=8), weights_key=b"same") as there,
    ):
        yield here, there, decoder


def request(**changes: Any) -> Generation:
    return replace(Generation("The day: ", GREEDY, LENGTH, id="cmpl-1"), **changes)


async def read(engine: Engine, asked: Generation | MovedAnswer) -> tuple[str, list[Delta]]:
    stream = engine.generate(asked) if isinstance(asked, Generation) else engine.resume(asked)
    deltas = [delta async for delta in stream]
    return "".join(delta.text for delta in deltas), deltas


async def exported(engine: Engine, decoder: CopyingDecoder) -> MovedAnswer:
    """The answer, taken out after the step that waits at the gate."""
    export = asyncio.ensure_future(engine.export("cmpl-1", lambda num_bytes: None))
    for _ in range(3):
        await asyncio.sleep(0)
    decoder.release()
    return await export


async def moved(
    engine: Engine, decoder: CopyingDecoder, asked: Generation, after: int
) -> tuple[str, list[Delta], MovedAnswer]:
    """What the client of an answer reads that is moved after some steps, and the answer, through its bytes."""

    async def at_the_gate() -> MovedAnswer:
        # Not after so many tokens: the client may get the last one later, since a stop text may begin with it.
        while decoder.gate.is_set():
            await asyncio.sleep(0.001)
        return await exported(engine, decoder)

    decoder.last = len(decoder.steps) + after
    export = asyncio.ensure_future(at_the_gate())
    found = [delta async for delta in engine.generate(asked)]
    taken = await export
    return "".join(each.text for each in found), found, decode(memoryview(b"".join(encode(taken))))


@pytest.mark.parametrize("after", [1, 2, 4, 7])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stop": ("1 + 1 = 3", "ag, and 1 + 1 =")},
        {"sampling": SamplingParameters(seed=3, temperature=3, frequency_penalty=0.1, num_logprobs=2)},
        {"constraint": Constraint("regex", "[A-Za-zü ]+, .*"), "sampling": SamplingParameters(seed=2, temperature=5)},
        {"stop_tokens": frozenset(b","), "min_tokens": 3, "is_stop_included": True},
    ],
    ids=["plain", "stop text", "sampled", "constraint", "stop token"],
)
async def test_the_client_reads_one_answer(changes: dict[str, Any], after: int) -> None:
    async with engines() as (here, there, decoder):
        whole, deltas = await read(here, request(**changes))
        first, begun, state = await moved(here, decoder, request(**changes), after)
        assert (begun[-1].finish_reason, begun[-1].stop) == (FinishReason.MOVED, None)
        assert not here.holds("cmpl-1")
        second, rest = await read(there, state)
        assert first + second == whole
        tokens = [token for delta in (*begun, *rest) for token in delta.tokens]
        assert tokens == [token for delta in deltas for token in delta.tokens]
        assert (rest[-1].finish_reason, rest[-1].stop) == (deltas[-1].finish_reason, deltas[-1].stop)
        logprobs = [each for delta in (*begun, *rest) for each in delta.logprobs]
        assert logprobs == [each for delta in deltas for each in delta.logprobs]
        assert rest[-1].usage is not None
        assert rest[-1].usage.num_tokens == len(tokens)
        assert rest[-1].usage.num_cached_tokens <= rest[-1].usage.num_prompt_tokens == len(b"The day: ")


async def test_an_answer_that_cannot_be_moved_goes_on() -> None:
    def refuse(num_bytes: int) -> None:
        raise UnavailableError("there is no room")

    async def fails(kind: type[TriuneError], message: str, request_id: str = "cmpl-1") -> None:
        decoder.release()
        with pytest.raises(kind, match=message):
            await here.export(request_id, refuse)

    async with engines() as (here, _, decoder):
        whole, _ = await read(here, request())
        decoder.last = len(decoder.steps) + 2
        stream = here.generate(request())
        texts = [(await anext(stream)).text]
        with pytest.raises(AlreadyExistsError, match="an answer 'cmpl-1' is under way"):
            await read(here, request())
        asked = asyncio.ensure_future(fails(UnavailableError, "there is no room"))
        await fails(NotFoundError, "no answer 'cmpl-2' under way", "cmpl-2")
        await asked
        texts += [delta.text async for delta in stream]
        assert "".join(texts) == whole
        await fails(NotFoundError, "no answer 'cmpl-1' under way")
        tools = here.generate(request(shown_specials=frozenset({"<eos>"})))
        await anext(tools)
        await fails(UnsupportedError, "it may call tools")
        await tools.aclose()
        several = here.generate(request(num_answers=2))
        await anext(several)
        assert not here.holds("cmpl-1")
        await several.aclose()


async def test_only_one_of_two_exports_gets_the_answer() -> None:
    async with engines() as (here, _, decoder):
        decoder.last = 3
        stream = here.generate(request())
        await anext(stream)
        both = await asyncio.gather(*(exported(here, decoder) for _ in range(2)), return_exceptions=True)
        assert sorted(type(each).__name__ for each in both) == ["MovedAnswer", "UnavailableError"]
        await stream.aclose()


async def test_answers_of_other_models_are_refused() -> None:
    async with (
        engines() as (here, there, decoder),
        scripted_engine(CopyingDecoder(), weights_key=b"other") as other,
    ):
        _, _, state = await moved(here, decoder, request(), 4)
        with pytest.raises(InvalidArgumentError, match="is of weights 73616d65, and model 'scripted' has 6f74686572"):
            await read(other, state)
        for changes, message in [
            ({"answer": [VOCAB] * 8}, f"a token beyond 0 to {VOCAB - 1}"),
            ({"prompt": [-1] * 9}, "the prompt has token -1"),
            ({"adapter": "poet"}, "LoRA adapter 'poet', which model 'scripted' does not have"),
            ({"random": RandomState(1, 2)}, "the second one odd"),
            ({"parameters": SamplingParameters(logit_bias={VOCAB: 1})}, f"logit_bias names token {VOCAB}"),
            ({"ending": Ending(100_000)}, "the cache of 50 blocks holds 400 tokens"),
            ({"cached": KeysAndValues(8, [np.zeros((8, 2, 1))] * 2)}, "of another model"),
        ]:
            with pytest.raises(InvalidArgumentError, match=message):
                await read(there, replace(state, state=replace(state.state, **changes)))
        stopped = replace(
            state, request=replace(state.request, stop=("Gr",)), state=replace(state.state, answer=b"   Grrr ")
        )
        with pytest.raises(InvalidArgumentError, match="has a stop text"):
            await read(there, stopped)
        constrained = replace(state, request=replace(state.request, constraint=Constraint("regex", "[0-9]+")))
        with pytest.raises(InvalidArgumentError, match="number 0 of the answer, breaks the answer's constraint"):
            await read(there, constrained)
        unknown = replace(constrained, state=replace(state.state, answer=[-1] * 8))
        with pytest.raises(InvalidArgumentError, match="a token beyond 0 to"):
            await read(there, unknown)
        assert there.state.num_used_blocks == 0
        assert (await read(there, state))[1][-1].finish_reason is FinishReason.LENGTH


def answer() -> MovedAnswer:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(5, 2, 4)).astype(np.float32) for _ in range(4)]
    sampling = SamplingParameters(0.5, 0.9, 3, logit_bias={4: -1.5}, seed=9, num_logprobs=1)
    asked = Generation(
        (),
        sampling,
        40,
        2,
        ("a", "bc"),
        frozenset({7}),
        is_stop_included=True,
        constraint=Constraint("regex", "x*"),
        adapter="poet",
        id="cmpl-7",
        priority=3,
    )
    state = SequenceState(
        [1, 2, 3],
        [4, 5, 6],
        sampling,
        RandomState(1 << 127, 3),
        Ending(40, frozenset({7, EOS}), 2),
        3,
        "poet",
        KeysAndValues(5, arrays),
    )
    return MovedAnswer("model", b"weights", b"digest", asked, state)


@pytest.mark.parametrize(("kind", "itemsize"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_bytes_are_read_as_they_were_written(kind: str, itemsize: int) -> None:
    given = answer()
    dtype = np.dtype(kind) if kind != "bfloat16" else np.dtype(__import__("ml_dtypes").bfloat16)
    arrays = [each.astype(dtype).astype(np.float32) for each in given.state.cached.arrays]
    given = replace(given, state=replace(given.state, cached=replace(given.state.cached, arrays=arrays)))
    parts = encode(given)
    found = decode(memoryview(b"".join(parts)))
    assert sum(map(len, parts[3:])) == 4 * 5 * 2 * 4 * itemsize
    for mine, theirs in zip(arrays, found.state.cached.arrays, strict=True):
        assert np.array_equal(mine, theirs.astype(np.float32))
    for each in (given, found):
        object.__setattr__(each.state.cached, "arrays", ())
    assert found == given


def written(document: dict[str, Any] | bytes, body: bytes, **prefix: Any) -> memoryview:
    """Bytes with a right checksum, whatever they say."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    fields = {"magic": b"TRIUNESQ", "version": 1, "head": len(text), "size": len(body)} | prefix
    first = struct.pack("<8sIIQ", *fields.values())
    digest = blake2b(first + text + body, digest_size=32).digest()
    return memoryview(first + digest + text + body)


def parts() -> tuple[dict[str, Any], bytes]:
    _, head, *body = encode(answer())
    return json.loads(head), b"".join(body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cached_tokens": 1 << 27}, "its body has 664 bytes; 17179869208 are needed"),
        ({"cached_tokens": 7}, "its body has 664 bytes; 920 are needed"),
        ({"prompt_tokens": 0}, "prompt_tokens is 0"),
        ({"prompt_tokens": (1 << 20) + 1}, "prompt_tokens is 1048577; expected a whole number from 1 to 1048576"),
        ({"answer_tokens": -1}, "answer_tokens is -1"),
        ({"cache": {"type": "fp64", "shapes": []}}, "type is 'fp64'"),
        ({"priority": -1}, "priority"),
        ({"cache": {"type": "fp32", "shapes": [[2, 0]]}}, "pairs of heads and their size"),
        ({"cache": {"type": "fp32", "shapes": [[1, 1]] * 9000}}, "at most 8192 pairs"),
        ({"cache": {"type": "fp32", "shapes": []}}, "its body has 664 bytes; 24 are needed"),
        ({"cache": None}, "cache is None"),
        ({"random": ["1"]}, "two whole numbers of 128 bits"),
        ({"random": ["g", "1"]}, "two whole numbers of 128 bits"),
        ({"random": ["0" * 33, "1"]}, "two whole numbers of 128 bits"),
        ({"sampling": {}}, "temperature is None"),
        ({"sampling": "hot"}, "an object"),
        ({"max_tokens": 3}, "3 answered tokens is to go on; its max_tokens is 3"),
        ({"min_tokens": 50}, "min_tokens is 50"),
        ({"priority": 1 << 70}, "priority is"),
        ({"ends": ["a"]}, "ends is"),
        ({"stop": [1]}, "stop is"),
        ({"constraint": ["python", ""]}, "constraint is"),
        ({"constraint": 5}, "constraint is"),
        ({"adapter": ["poet"]}, "adapter is"),
        ({"adapter": ["poet", "xy"]}, "adapter is"),
        ({"weights": "no"}, "weights is"),
        ({"id": ""}, "id is"),
        ({"model": 3}, "model is"),
        ({"is_end_ignored": 1}, "is_end_ignored is"),
        ({"more": 1}, "1 settings are not known here: more = 1"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_heads_that_lie_are_refused(changes: dict[str, Any], message: str) -> None:
    head, body = parts()
    with pytest.raises(TriuneError, match=message):
        decode(written(head | changes, body))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kind", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_keys_and_values_that_are_no_numbers_are_refused(kind: str, dtype: str, value: float) -> None:
    head, body = parts()
    num_ids = head["prompt_tokens"] + head["answer_tokens"]
    elements = np.frombuffer(body[4 * num_ids :], "<f4").astype(dtype)
    elements[-1] = value
    head["cache"]["type"] = kind
    with pytest.raises(InvalidArgumentError, match="keys and values hold NaN or infinity"):
        decode(written(head, body[: 4 * num_ids] + elements.tobytes()))


def test_broken_bytes_are_refused() -> None:
    head, body = parts()
    decode(written(head, body))
    for data, kind, message in [
        (memoryview(b""), InvalidArgumentError, "it has 0 bytes; its first part alone has 56"),
        (written(head, body, magic=b"TRIUNEXY"), InvalidArgumentError, "does not begin with 'TRIUNESQ'"),
        (written(head, body, version=2), UnsupportedError, "has version 2 .*; this server reads version 1"),
        (written(head, body, head=1 << 30), PayloadTooLargeError, "a head of 1073741824 bytes; 1048576 may be"),
        (written(head, body, size=1 << 60), InvalidArgumentError, "by its sizes it should have"),
        (written(head, body)[:-1], InvalidArgumentError, "by its sizes it should have"),
        (written(b"[]", body), InvalidArgumentError, "its head is no JSON object"),
        (written(b"\xff", body), InvalidArgumentError, "its head is no JSON"),
        (written(b'{"id": "\\ud800"}', body), InvalidArgumentError, "its head is no JSON"),
        (written(b"\xef\xbb\xbf{}", body), InvalidArgumentError, "its head is no JSON"),
        (written(b'{"stop": ["a\\udc00"], "id": ""}', body), InvalidArgumentError, "its head is no JSON"),
        (written(b'{"model": "a", "model": "b"}', body), InvalidArgumentError, '"model" is given twice'),
        (written(b"[" * 60_000, body), InvalidArgumentError, "its head is no JSON"),
        (written(b"[" + b"1," * 70_000 + b"1]", body), PayloadTooLargeError, "has 70001 values; 65536 may be"),
        (written(b'{"priority": ' + b"9" * 5000 + b"}", body), InvalidArgumentError, "its head is no JSON"),
    ]:
        with pytest.raises(kind, match=message):
            decode(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@examples(300)
@given(
    st.sampled_from(sorted(parts()[0])),
    st.none() | st.sampled_from(["type", "shapes", "seed", "top_k", "logit_bias"]),
    VALUES,
)
def test_heads_of_any_values_are_read_or_refused(name: str, inner: str | None, value: Any) -> None:
    head, body = parts()
    if inner is not None and isinstance(head[name], dict):
        head[name][inner] = value
    else:
        head[name] = value
    with contextlib.suppress(TriuneError):
        decode(written(head, body))


@examples(200)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_found(place: int, mask: int) -> None:
    data = bytearray(b"".join(encode(answer())))
    data[place % len(data)] ^= mask
    with pytest.raises(TriuneError):
        decode(memoryview(data))


async def test_a_long_answer_comes_in_parts_with_steps_of_others_between() -> None:
    decoder, target = CopyingDecoder(num_blocks=300), CopyingDecoder(num_blocks=300)
    writes: list[tuple[int, int]] = []
    write_tokens = target.write_tokens

    def written(blocks: Any, tokens: Any) -> None:
        writes.append((len(target.steps), len(blocks) * target.block_size))
        write_tokens(blocks, tokens)

    target.write_tokens = written  # type: ignore[method-assign]
    async with (
        scripted_engine(decoder, weights_key=b"same") as here,
        scripted_engine(target, weights_key=b"same") as there,
    ):
        asked = request(prompt="x" * 400, max_tokens=60)
        text, _, taken = await moved(here, decoder, asked, 2)
        neighbour = asyncio.ensure_future(read(there, request(id="cmpl-2", max_tokens=200)))
        while not target.steps:
            await asyncio.sleep(0)
        rest, deltas = await read(there, taken)
        await neighbour
    assert text + rest == bytes(SCRIPT[at % len(SCRIPT)] for at in range(400, 460)).decode()
    assert deltas[-1].usage is not None
    assert [count for _, count in writes] == [64] * 6 + [16]
    steps = [step for step, _ in writes]
    assert steps == list(range(steps[0], steps[0] + 7)), "each part is followed by a step"
    # Of the moved answer, only what is in no full block is computed.
    assert max(len(step.input_ids) for step in target.steps[steps[0] :]) <= 1 + target.block_size
