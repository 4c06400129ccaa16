"""Triton's requests to a text model, with a model that recites."""

import asyncio
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest

from support.scripted import POISON, VOCAB, ScriptedDecoder, scripted_engine
from triune.config.transformer import ADDITIONAL_OUTPUTS, flag_of
from triune.core.errors import (
    InternalError,
    InvalidArgumentError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedError,
)
from triune.core.requests import InferenceRequest, RequestedOutput
from triune.core.servable import Call
from triune.core.statistics import FailureReason
from triune.engine.servable import TextServable
from triune.engine.structured.constraint import Constraint
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
        (call(sampling=f'{{"stop_token_ids": [{"5," * 600_000}5]}}'), "has 1200023 characters; 1048576 are the limit"),
        (call(parameters={"guided_decoding": "{" * 2_000_000}), "'guided_decoding' has 2000000 characters; 1048576"),
        (call(sampling={"temprature": 1}), "'temprature' is unknown; known are n, max_tokens"),
        (call(sampling={"max_tokens": 1.5}), "'max_tokens' is 1.5; it must be a whole number"),
        (call(sampling={"max_tokens": True}), "'max_tokens' is True"),
        (call(sampling={"temperature": "warm"}), "'temperature' is 'warm'"),
        (call(sampling={"temperature": 10**400}), "'temperature' is"),
        (call(sampling={"ignore_eos": 1}), "must be true or false"),
        (call(sampling={"stop": [1]}), "must be a text, or an array of texts"),
        (call(sampling={"logit_bias": [1]}), "must be an object"),
        (call(sampling={"top_p": 2}), "top_p is 2"),
        (call(sampling={"n": 10**9}), "'n' is 1000000000; it must be between 1 and 128"),
        (call(stream=True, sampling={"n": 0}), "'n' is 0"),
        (call(sampling={"prompt_logprobs": 21}, return_prompt_logprobs=True), "num_prompt_logprobs is 21"),
        (call(sampling={"structured_outputs": "{"}), "'structured_outputs' is not JSON"),
        (call(sampling={"structured_outputs": {}}), "'structured_outputs' has nothing; it must have one of choice"),
        (call(sampling={"structured_outputs": '{"regex": "a", "json": {}}'}), "has 'regex', 'json'; it must have one"),
        (call(sampling={"structured_outputs": {"structural_tag": "x"}}), "has 'structural_tag'"),
        (call(sampling={"structured_outputs": {"json": 5}}), "'structured_outputs.json' must be a JSON schema"),
        (call(sampling={"structured_outputs": {"json": "[1]"}}), "'structured_outputs.json' holds a list"),
        (call(sampling={"guided_decoding": {"choice": [1]}}), "'guided_decoding.choice' must be a text, or an array"),
        (call(sampling={"guided_decoding": {"regex": "a"}, "structured_outputs": {"regex": "a"}}), "two names"),
        (
            call(sampling={"n": 128, "max_tokens": 200, "logprobs": 20}, return_logprobs=True),
            "'logprobs' may hold 537600 probabilities: 21 for each of 25600 tokens; a response holds 262144 at most",
        ),
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
            "prompt_logprobs": 2,
            "structured_outputs": '{"json": {"type": "string"}}',
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
    assert (read.num_prompt_logprobs, read.constraint) == (2, Constraint("json_schema", '{"type": "string"}'))


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ({"json": '{"type": "string"}'}, Constraint("json_schema", '{"type": "string"}')),
        ({"json_object": True, "regex": None}, Constraint("json_object")),
        ({"regex": "[a-z]+", "json_object": False}, Constraint("regex", "[a-z]+")),
        ({"choice": ["yes", "no"]}, Constraint("choice", '["yes", "no"]')),
        ({"grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"')),
    ],
)
def test_forms_of_answers_as_in_vllm(given: Mapping[str, object], constraint: Constraint) -> None:
    for value in (given, json.dumps(given)):
        assert read_generation("p", json.dumps({"guided_decoding": value}), {}, 0).constraint == constraint


FLAGS = {flag_of(name): True for name in ADDITIONAL_OUTPUTS}
# The scripted decoder gives its next byte the logit 20, and all other tokens 0.
SURE = -math.log(1 + (VOCAB - 1) * math.exp(-20))
RARE = SURE - 20


async def test_a_request_gets_the_outputs_that_it_asks_for_as_from_vllms_backend() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        sampling = {"max_tokens": 3, "n": 2, "logprobs": 1, "prompt_logprobs": 1}
        (response,) = [each async for each in servable.stream(call("Ta", sampling, **FLAGS))]
        outputs = response.outputs
        assert list(outputs) == ["text_output", *ADDITIONAL_OUTPUTS]
        assert outputs["text_output"].tolist() == [b"Ta be"] * 2
        assert outputs["finish_reason"].tolist() == [b"length"] * 2
        assert outputs["cumulative_logprob"] == pytest.approx([3 * SURE] * 2, abs=1e-6)
        assert outputs["cumulative_logprob"].dtype == np.float32
        assert (outputs["num_input_tokens"].tolist(), outputs["num_output_tokens"].tolist()) == ([2], [3, 3])
        assert outputs["num_input_tokens"].dtype == outputs["num_output_tokens"].dtype == np.uint32
        for text in outputs["logprobs"]:
            assert [list(each) for each in json.loads(text)] == [["32"], ["98"], ["101"]]
            assert json.loads(text)[0]["32"] == {"logprob": pytest.approx(SURE), "rank": 1, "decoded_token": " "}
        (text,) = outputs["prompt_logprobs"]
        first, second = json.loads(text)
        assert first is None
        # The decoder recites "To be", so that "a" is no likelier there than any other token.
        assert second == {
            "97": {"logprob": pytest.approx(RARE), "rank": 2, "decoded_token": "a"},
            "111": {"logprob": pytest.approx(SURE), "rank": 1, "decoded_token": "o"},
        }


async def test_each_response_of_a_stream_has_what_was_added() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        asked = call("To", {"max_tokens": 5, "logprobs": 0}, stream=True, **FLAGS)
        outputs = [each.outputs async for each in servable.stream(asked)]
        assert [each["finish_reason"].tolist() for each in outputs] == [[b"None"]] * (len(outputs) - 1) + [[b"length"]]
        assert sum(int(each["num_output_tokens"][0]) for each in outputs) == 5
        assert all(each["num_input_tokens"].tolist() == [2] for each in outputs)
        entries = [entry for each in outputs for entry in json.loads(each["logprobs"][0])]
        assert {each["rank"] for entry in entries for each in entry.values()} == {1}
        tokens = [int(token) for entry in entries for token in entry]
        assert bytes(tokens) == b" be, "
        assert outputs[-1]["cumulative_logprob"] == pytest.approx([5 * SURE], abs=1e-6)
        assert ["prompt_logprobs" in each for each in outputs] == [True] + [False] * (len(outputs) - 1)


async def test_outputs_that_nobody_asked_for_are_not_computed() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT)) as engine:
        servable = TextServable(engine, "m", 2)
        plain = call("To", {"max_tokens": 2, "logprobs": 1, "prompt_logprobs": 1})
        assert [list(each.outputs) async for each in servable.stream(plain)] == [["text_output"]]
        # Without a number of probabilities vLLM's backend writes null; the sum is there.
        asked = call("To", {"max_tokens": 2}, return_logprobs=True, return_cumulative_logprob=True)
        (response,) = [each async for each in servable.stream(asked)]
        assert response.outputs["logprobs"].tolist() == [b"null"]
        assert response.outputs["cumulative_logprob"] == pytest.approx([2 * SURE], abs=1e-6)
        asked.request.outputs = (RequestedOutput("finish_reason"), RequestedOutput("cumulative_logprob"))
        (response,) = [each async for each in servable.stream(asked)]
        assert list(response.outputs) == ["cumulative_logprob"]


async def test_probabilities_of_long_texts_are_written_in_a_thread() -> None:
    async with scripted_engine(ScriptedDecoder(SCRIPT, num_blocks=4096)) as engine:
        servable = TextServable(engine, "m", 2)
        prompt = (SCRIPT * 20).decode()
        sampling = {"max_tokens": 300, "logprobs": 2, "prompt_logprobs": 3}
        asked = call(prompt, sampling, return_logprobs=True, return_prompt_logprobs=True)
        (response,) = [each async for each in servable.stream(asked)]
        read = json.loads(response.outputs["prompt_logprobs"][0])
        assert len(read) == len(prompt)
        assert [max(each, key=lambda token: each[token]["logprob"]) for each in read[1:]] == [
            str(byte) for byte in prompt.encode()[1:]
        ]
        assert [next(iter(each)) for each in json.loads(response.outputs["logprobs"][0])] == [
            str((SCRIPT * 8)[place]) for place in range(300)
        ]
        asked = call(prompt * 15, {"prompt_logprobs": 20}, return_prompt_logprobs=True)
        with pytest.raises(PayloadTooLargeError, match="may hold 270900 .*: 21 for each of 12900 tokens"):
            await texts(servable, asked)


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
