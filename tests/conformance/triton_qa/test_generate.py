"""L0_http: the generate endpoints. Triton's model is a decoupled one in Python; this one answers once."""

import json
import threading
from collections.abc import Iterator

import pytest
import requests
from onnx import TensorProto, helper

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import INT64, STRING, UNBATCHED_STRINGS, cases_of, model_bytes, zero

triton = cases_of("L0_http/generate_endpoint_test.py::")
HELLO = {"PROMPT": "hello world", "STREAM": False}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """TEXT is PROMPT, whatever STREAM says; `input_ids` may be left out."""
    folder = tmp_path_factory.mktemp("generate")
    graph = helper.make_graph(
        [
            helper.make_node("Where", ["STREAM", "PROMPT", "PROMPT"], ["TEXT"]),
            helper.make_node("Size", ["input_ids"], ["num_ids"]),
        ],
        "mock_llm",
        [
            helper.make_tensor_value_info("PROMPT", STRING, [1]),
            helper.make_tensor_value_info("STREAM", TensorProto.BOOL, [1]),
            helper.make_tensor_value_info("input_ids", INT64, ["n"]),
        ],
        [helper.make_tensor_value_info("TEXT", STRING, [1]), helper.make_tensor_value_info("num_ids", INT64, [])],
        [helper.make_tensor("input_ids", INT64, [1], [0])],
    )
    inputs = (
        '{ name: "PROMPT" data_type: TYPE_STRING dims: 1 }, { name: "STREAM" data_type: TYPE_BOOL dims: 1 }, '
        '{ name: "input_ids" data_type: TYPE_INT64 dims: -1 optional: true }'
    )
    write_model(folder, "mock_llm", f'backend: "onnxruntime" input [ {inputs} ]', v1=model_bytes(graph))
    write_model(folder, "strings", UNBATCHED_STRINGS, v1=zero(STRING, batch=False))
    with serve(folder) as running:
        yield running


def generate(served: Served, body: object, *, model: str = "mock_llm", stream: bool = False) -> requests.Response:
    data = body if isinstance(body, str) else json.dumps(body)
    endpoint = "generate_stream" if stream else "generate"
    return requests.post(f"http://{served.http}/v2/models/{model}/{endpoint}", data=data, timeout=60)


def text_of(response: requests.Response) -> dict[str, object]:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    return response.json()


def refused(served: Served, body: object, words: str) -> None:
    for stream in (False, True):
        answer = generate(served, body, stream=stream)
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
        assert words in answer.json()["error"]


@triton("test_generate", "test_generate_with_all_inputs")
def test_a_prompt(served: Served) -> None:
    assert text_of(generate(served, HELLO))["TEXT"] == "hello world"
    answer = text_of(generate(served, {**HELLO, "input_ids": [100, 200]}))
    assert (answer["TEXT"], answer["num_ids"]) == ("hello world", 2)


@triton("test_request_id")
def test_an_id(served: Served) -> None:
    assert text_of(generate(served, {**HELLO, "id": "42"}))["id"] == "42"
    assert "id" not in text_of(generate(served, HELLO))
    assert "id" not in text_of(generate(served, {**HELLO, "id": ""}))


@triton("test_missing_inputs")
def test_missing_inputs(served: Served) -> None:
    for body in ({}, {"abc": 123}):
        refused(served, body, "expected number of inputs between 2 and 3 but got 0")
    for body in ({"PROMPT": "hello"}, {"STREAM": False}, {"STREAM": False, "other": "param"}):
        refused(served, body, "expected number of inputs between 2 and 3 but got 1")


@triton("test_invalid_input_types")
def test_values_of_another_type(served: Served) -> None:
    boolean, string = "attempt to access JSON non-boolean as boolean", "attempt to access JSON non-string as string"
    refused(served, {"PROMPT": 123, "STREAM": False}, string)
    refused(served, {"PROMPT": "hello", "STREAM": "false"}, boolean)
    # The first is told.
    refused(served, {"PROMPT": True, "STREAM": 123}, string)
    refused(served, {"STREAM": 123, "PROMPT": True}, boolean)


@triton("test_duplicate_inputs")
def test_a_key_twice(served: Served) -> None:
    prompt, stream = "input 'PROMPT' already exists in request", "input 'STREAM' already exists in request"
    start = '{"PROMPT": "hello", "STREAM": false, '
    refused(served, start + '"PROMPT": "duplicate"}', prompt)
    refused(served, start + '"STREAM": false}', stream)
    refused(served, start + '"PROMPT": "duplicate", "STREAM": true}', prompt)
    refused(served, start + '"STREAM": true, "PROMPT": "duplicate"}', stream)


@triton("test_one_response")
def test_one_response(served: Served) -> None:
    for is_streaming in (True, False):
        body = {"PROMPT": "hello world", "STREAM": is_streaming}
        answer = generate(served, body, stream=True)
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert [json.loads(each[6:])["TEXT"] for each in answer.text.split("\n\n") if each] == ["hello world"]
        assert text_of(generate(served, body))["TEXT"] == "hello world"


@triton("test_race_condition")
def test_many_at_once(served: Served) -> None:
    failures: list[str] = []

    def ask() -> None:
        answer = generate(served, {**HELLO, "param": "any"}, stream=True)
        if answer.status_code != 200:
            failures.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures


@triton("test_complex_schema")
def test_objects_are_no_values(served: Served) -> None:
    refused(served, {**HELLO, "PARAMS": {"PARAM_0": 0, "PARAM_1": True}}, "parameter 'PARAMS' has invalid type")
    body = {"PROMPT": {"USER": "hello world", "BOT": "world hello"}, "STREAM": True}
    refused(served, body, "attempt to access JSON non-string as string")


@triton("test_parameters")
def test_the_object_of_parameters(served: Served) -> None:
    # An input within it counts as one beside it.
    assert text_of(generate(served, {"STREAM": True, "parameters": {"PROMPT": ["x"], "more": 3}}))["TEXT"] == "x"
    refused(served, {**HELLO, "parameters": 1}, "Expected JSON object for keyword: 'parameters'")
    words = "Converting keyword: 'parameters': parameter 'nested' has invalid type."
    refused(served, {**HELLO, "parameters": {"nested": {"twice": 1}}}, words)


@triton("test_0_dimension_output")
def test_an_output_without_elements(served: Served) -> None:
    assert text_of(generate(served, {"INPUT0": []}, model="strings"))["OUTPUT0"] == []
