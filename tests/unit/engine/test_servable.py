"""Triton's requests to a text model, with a model that recites."""

import asyncio
import json
from collections.abc import Mapping

import numpy as np
import pytest

from support.scripted import POISON, ScriptedDecoder, scripted_engine
from triune.core.errors import InternalError, InvalidArgumentError, UnavailableError, UnsupportedError
from triune.core.requests import InferenceRequest
from triune.core.servable import Call
from triune.core.statistics import FailureReason
from triune.engine.servable import TextServable
from triune.engine.triton import read_generation

SCRIPT = b"To be, or not to be, that is the question. "


def call(prompt: str | bytes = "To be", sampling: Mapping[str, object] | str | None = None, **more: object) -> Call:
    inputs = {"text_input": np.array([prompt.encode() if isinstance(prompt, str) else prompt], np.object_)}
    if sampling is not None:
        text = sampling if isinstance(sampling, str) else json.dumps(sampling)
        inputs["sampling_parameters"] = np.array([text.encode()], np.object_)
    inputs |= {name: np.array([value]) for name, value in more.items() if isinstance(value, bool)}
    parameters = more.get("parameters", {})
    request = InferenceRequest("m", inputs, id="7", parameters=parameters)  # type: ignore[arg-type]
    return Call(request, inputs, 1)


async def texts(servable: TextServable, asked: Call) -> list[list[str]]:
    responses = [each async for each in servable.stream(asked)]
    assert [each.is_final for each in responses] == [False] * (len(responses) - 1) + [True]
    assert {(each.model, each.version, each.id) for each in responses} == {("m", 2, "7")}
    return [[text.decode() for text in each.outputs["text_output"]] for each in responses]


async def test_one_response_has_prompt_and_answer() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        assert await texts(servable, call()) == [["To be, or not to be, "]]
        assert await texts(servable, call(exclude_input_in_output=True)) == [[", or not to be, "]]
        assert await texts(servable, call(sampling={"max_tokens": 4, "n": 2})) == [["To be, or"] * 2]
        assert await texts(servable, call(parameters={"max_tokens": 4})) == [["To be, or"]]
        assert servable.statistics.success.count == 4


async def test_a_stream_has_what_is_added() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        parts = await texts(servable, call(stream=True))
        assert "".join(part for (part,) in parts) == ", or not to be, "
        parts = await texts(servable, call(stream=True, sampling={"n": 2, "max_tokens": 6}))
        assert ["".join(each) for each in zip(*parts, strict=True)] == [", or n"] * 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (call(stream=True, exclude_input_in_output=False), "needs 'stream' to be false"),
        (call(b"\xff\xfe"), "'text_input' is not UTF-8: .* at byte 0"),
        (call(""), "the prompt has no token"),
        (call(sampling="{"), "'sampling_parameters' is not JSON"),
        (call(sampling='{"max_tokens": 1, "max_tokens": 2}'), 'not JSON: the field "max_tokens" is given twice'),
        (call(sampling="[1]"), "holds a list"),
        (call(sampling={"temprature": 1}), "'temprature' is unknown; known are n, max_tokens"),
        (call(sampling={"max_tokens": 1.5}), "'max_tokens' is 1.5; it must be a whole number"),
        (call(sampling={"max_tokens": True}), "'max_tokens' is True"),
        (call(sampling={"temperature": "warm"}), "'temperature' is 'warm'"),
        (call(sampling={"temperature": 10**400}), "'temperature' is"),
        (call(sampling={"ignore_eos": 1}), "must be true or false"),
        (call(sampling={"stop": [1]}), "must be a text, or an array of texts"),
        (call(sampling={"logit_bias": [1]}), "must be an object"),
        (call(sampling={"top_p": 2}), "top_p is 2"),
        (call(parameters={"stream": True}), "'stream' is unknown"),
        (call(parameters={"triune_unit": "ane"}), "'triune_unit' is 'ane'; model 'm' runs on 'cpu'"),
    ],
)
async def test_wrong_requests(asked: Call, message: str) -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        with pytest.raises(InvalidArgumentError, match=message):
            await texts(servable, asked)
        assert await texts(servable, call()) == [["To be, or not to be, "]]


def test_names_of_vllm() -> None:
    text = json.dumps(
        {
            "n": 2,
            "max_tokens": None,
            "min_tokens": 1,
            "temperature": "0.5",
            "top_p": 0.9,
            "top_k": -1,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "presence_penalty": 1,
            "frequency_penalty": -1,
            "seed": 5,
            "logit_bias": {"7": 1.5},
            "logprobs": 3,
            "stop": "end",
            "stop_token_ids": [9],
            "ignore_eos": True,
            "include_stop_str_in_output": True,
            "lora_name": "poet",
        }
    )
    read = read_generation("p", text, {}, 3)
    assert (read.prompt, read.num_answers, read.max_tokens, read.min_tokens, read.priority) == ("p", 2, 16, 1, 3)
    assert (read.stop, read.stop_tokens, read.is_end_ignored, read.is_stop_included) == (("end",), {9}, True, True)
    assert (read.adapter, read_generation("p", None, {"lora_name": "poet"}, 0).adapter) == ("poet", "poet")
    sampling = read.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 0, 0.1)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1.1, 1, -1)
    assert (sampling.seed, sampling.num_logprobs, sampling.logit_bias) == (5, 3, {7: 1.5})


async def test_a_single_answer_cannot_be_asked_for() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        with pytest.raises(UnsupportedError, match="model 'm' is decoupled: use the streaming interface"):
            TextServable(engine, "m", 2).submit(call())


async def test_a_failure_is_its_own_requests() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        asked = [call(), call(bytes([65, POISON])), call()]
        answers = await asyncio.gather(*(texts(servable, each) for each in asked), return_exceptions=True)
        assert answers[0] == answers[2] == [["To be, or not to be, "]]
        assert isinstance(answers[1], InternalError)
        assert servable.statistics.failures[FailureReason.BACKEND] == 1


async def test_who_gives_up_costs_nobody_else_and_drain_waits() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        first, second = (asyncio.ensure_future(texts(servable, call(sampling={"max_tokens": 80}))) for _ in range(2))
        leaver = servable.stream(call(stream=True, sampling={"max_tokens": 200}))
        await anext(leaver)
        await leaver.aclose()
        await asyncio.wait_for(servable.drain(), 60)
        await asyncio.sleep(0)
        assert first.done()
        assert second.done()
        assert engine.state.num_running == 0
        servable.refuse()
        with pytest.raises(UnavailableError):
            await texts(servable, call())
