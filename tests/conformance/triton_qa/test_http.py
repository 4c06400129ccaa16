"""L0_http: what HTTP clients send beside well-formed inferences."""

import json
import threading

import numpy as np
import pytest
import requests
import tritonclient.http
from tritonclient.utils import InferenceServerException

from support.process import Served
from support.triton_qa import JSON, RAW, post, refused, states, tensor
from support.triton_tensors import tensors

triton = pytest.mark.triton
EIGHT = np.arange(8, dtype=np.float32)


def infer_raw(
    served: Served, model: str, body: bytes | str, headers: dict[str, str] | None = None
) -> requests.Response:
    return post(served, f"v2/models/{model}/infer", body, {**RAW, **(headers or {})})


def infer(served: Served, model: str, *inputs: dict[str, object], **fields: object) -> requests.Response:
    return post(served, f"v2/models/{model}/infer", {"inputs": inputs, **fields}, JSON)


def binary_part(response: requests.Response) -> bytes:
    assert response.status_code == 200, response.text
    return response.content[int(response.headers["Inference-Header-Content-Length"]) :]


@pytest.mark.parametrize(
    "num_values",
    [
        pytest.param(8, marks=triton("L0_http/http_test.py::test_raw_binary")),
        pytest.param(32, marks=triton("L0_http/http_test.py::test_raw_binary_longer")),
    ],
)
def test_a_raw_body_is_the_one_input(examples: Served, num_values: int) -> None:
    data = np.arange(num_values, dtype=np.float32).tobytes()
    assert binary_part(infer_raw(examples, "onnx_zero_1_float32", data)) == data


@triton("L0_http/http_test.py::test_byte")
def test_a_raw_body_is_one_element_of_bytes(examples: Served) -> None:
    assert binary_part(infer_raw(examples, "onnx_zero_1_object_1_element", "427"))[4:] == b"427"


@triton("L0_http/http_test.py::test_byte_too_many_elements")
def test_a_raw_body_is_not_many_elements_of_bytes(examples: Served) -> None:
    words = "For BYTE datatype raw input 'INPUT0', the model must have input shape [1]"
    refused(infer_raw(examples, "onnx_zero_1_object", "427"), 400, words)


@triton("L0_http/http_test.py::test_multi_variable_dimensions")
def test_a_raw_body_does_not_settle_two_free_dimensions(examples: Served) -> None:
    body = np.ones([2, 2], np.float16).tobytes()
    words = "The shape of the raw input 'INPUT0' can not be deduced because there are more than one variable-sized"
    refused(infer_raw(examples, "onnx_zero_1_float16", body), 400, words)


@triton("L0_http/http_test.py::test_multi_inputs")
def test_a_raw_body_is_not_several_inputs(examples: Served) -> None:
    words = "Raw request must only have 1 input (found 1) to be deduced but got 3 inputs in"
    refused(infer_raw(examples, "onnx_zero_3_float32", np.arange(24, dtype=np.float32).tobytes()), 400, words)


@triton("L0_http/http_test.py::test_content_encoding_chunked_manually")
def test_a_body_in_chunks(examples: Served) -> None:
    data = EIGHT.tobytes()
    answer = requests.post(
        f"http://{examples.http}/v2/models/onnx_zero_1_float32/infer", data=iter([data[:9], data[9:]]), headers=RAW
    )
    assert binary_part(answer) == data


@triton("L0_http/http_test.py::test_content_encoding_unsupported_client")
@pytest.mark.parametrize("coding", ["chunked", "compress", "deflate", "gzip"])
def test_the_client_refuses_transfer_codings(examples: Served, coding: str) -> None:
    inputs, headers = tensors(tritonclient.http, {"INPUT0": EIGHT[None]}), {"Transfer-Encoding": coding}
    with (
        tritonclient.http.InferenceServerClient(examples.http) as client,
        pytest.raises(InferenceServerException, match="Unsupported HTTP header"),
    ):
        client.infer("onnx_zero_1_float32", inputs, headers=headers)


@triton("L0_http/http_test.py::test_descriptive_status_code")
def test_a_full_queue_is_503(examples: Served) -> None:
    answers: list[requests.Response] = []
    first = threading.Thread(
        target=lambda: answers.append(infer_raw(examples, "onnx_zero_1_float32_queue", EIGHT.tobytes()))
    )
    second = threading.Thread(
        target=lambda: answers.append(infer_raw(examples, "onnx_zero_1_float32_queue", EIGHT.tobytes()))
    )
    first.start()
    second.start()
    first.join()
    second.join()
    # One waits for its batch, the other finds the queue full.
    answers.sort(key=lambda each: each.status_code)
    assert binary_part(answers[0]) == EIGHT.tobytes()
    refused(answers[1], 503, "Exceeds maximum queue size")


@triton("L0_http/http_test.py::test_buffer_size_overflow")
def test_shapes_whose_size_no_number_holds(examples: Served) -> None:
    elements = infer(examples, "onnx_zero_1_float32", tensor(shape=[2**4, 2**60 + 2], data=[1.0]))
    refused(elements, 400, "causes total element count to exceed maximum size of")
    size = infer(examples, "onnx_zero_1_float32", tensor(shape=[2**2, 2**60 + 2], data=[1.0]))
    refused(size, 400, "byte size overflow for input")


@triton("L0_http/http_test.py::test_negative_dimensions")
def test_negative_dimensions(examples: Served) -> None:
    words = "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"
    refused(infer(examples, "onnx_zero_1_float32", tensor(shape=[2, -5], data=[1.0])), 500, words)


@triton("L0_http/http_test.py::test_load_oversized_file_parameter")
def test_a_file_name_that_no_disk_takes(examples: Served) -> None:
    body = {"parameters": {"file:" + "A" * 256: "YQ==", "config": "{}"}}
    answer = post(examples, "v2/repository/models/onnx_zero_1_float32/load", body, JSON)
    refused(answer, 500, "failed to poll from model repository")
    assert requests.get(f"http://{examples.http}/v2/health/ready").status_code == 200
    assert states(examples)["onnx_zero_1_float32/1"] == "READY"


@triton("L0_http/http_test.py::test_json_recursion_depth_limit")
@pytest.mark.parametrize(
    ("datatype", "data", "model"), [("BYTES", '"hello"', "simple_identity"), ("INT64", "123", "simple_identity_int64")]
)
def test_nested_data(examples: Served, datatype: str, data: str, model: str) -> None:
    def nested(depth: int) -> requests.Response:
        text = json.dumps({"inputs": [tensor(datatype=datatype, shape=[1, 1], data="DATA")]})
        return post(
            examples, f"v2/models/{model}/infer", text.replace('"DATA"', "[" * depth + data + "]" * depth), JSON
        )

    assert nested(50).status_code == 200, nested(50).text
    refused(nested(120), 400, "JSON nesting depth exceeds maximum allowed limit (100)")


@triton("L0_http/http_test.py::test_duplicate_output_names")
def test_an_output_twice(examples: Served) -> None:
    outputs = [{"name": "OUTPUT0"}] * 2
    answer = infer(examples, "onnx_zero_1_float32", tensor(), outputs=outputs)
    refused(answer, 400, "output 'OUTPUT0' already exists in request")
    assert requests.get(f"http://{examples.http}/v2/health/live").status_code == 200


READY = "Invalid value for 'ready': expected a boolean"


def index_nested(served: Served, depth: int) -> requests.Response:
    answer = post(served, "v2/repository/index", '{"ready":' + "[" * depth + "true" + "]" * depth + "}", JSON)
    assert requests.get(f"http://{served.http}/v2/health/live").status_code == 200
    return answer


@triton("L0_http/http_test.py::test_repository_index_deeply_nested_json")
def test_an_index_request_of_deeply_nested_json(examples: Served) -> None:
    refused(index_nested(examples, 250_000), 400, READY)


def test_an_index_request_of_other_than_a_boolean(examples: Served) -> None:
    refused(index_nested(examples, 100), 400, READY)
    assert index_nested(examples, 20_000).status_code == 400
    assert index_nested(examples, 250_000).status_code == 413


@triton("L0_http/http_test.py::test_inference_header_content_length_out_of_range")
def test_a_header_length_out_of_range(examples: Served) -> None:
    headers = {"Inference-Header-Content-Length": "99999999999"}
    refused(post(examples, "v2/models/onnx_zero_1_float32/infer", {"inputs": []}, headers), 400)
    assert requests.get(f"http://{examples.http}/v2/health/live").status_code == 200


# Binary and JSON data, in test.sh.

SIXTEEN = list(range(1, 17))
SUM, ZEROS = [2 * each for each in SIXTEEN], [0] * 16


def add(served: Served, **fields: object) -> requests.Response:
    inputs = [tensor(name, "INT32", [1, 16], SIXTEEN) for name in ("INPUT0", "INPUT1")]
    return infer(served, "simple", *inputs, **fields)


def json_outputs(response: requests.Response) -> dict[str, object]:
    """Data by name of those outputs that came in JSON."""
    assert response.status_code == 200, response.text
    size = int(response.headers.get("Inference-Header-Content-Length", len(response.content)))
    return {each["name"]: each["data"] for each in json.loads(response.content[:size])["outputs"] if "data" in each}


BOTH = {"OUTPUT0": SUM, "OUTPUT1": ZEROS}


@pytest.mark.parametrize(
    ("default", "outputs", "in_json"),
    [
        pytest.param(None, None, BOTH, marks=triton("L0_http/test.sh::no parameters, no outputs")),
        pytest.param(
            None, (True, False), {"OUTPUT1": ZEROS}, marks=triton("L0_http/test.sh::binary_data true and false")
        ),
        pytest.param(
            None, (True, None), {"OUTPUT1": ZEROS}, marks=triton("L0_http/test.sh::binary_data true and not given")
        ),
        pytest.param(True, None, {}, marks=triton("L0_http/test.sh::binary_data_output true, no outputs")),
        pytest.param(
            True, (False, None), {"OUTPUT0": SUM},
            marks=triton("L0_http/test.sh::binary_data_output true, binary_data false and not given"),
        ),
    ],
)  # fmt: skip
def test_which_outputs_are_binary(
    examples: Served, default: bool | None, outputs: tuple[bool | None, ...] | None, in_json: dict[str, object]
) -> None:
    fields: dict[str, object] = {}
    if default is not None:
        fields["parameters"] = {"binary_data_output": default}
    if outputs is not None:
        fields["outputs"] = [
            {"name": name, **({} if is_binary is None else {"parameters": {"binary_data": is_binary}})}
            for name, is_binary in zip(BOTH, outputs, strict=True)
        ]
    assert json_outputs(add(examples, **fields)) == in_json


@triton("L0_http/test.sh::fewer data than the shape says")
def test_fewer_data_than_the_shape_says(examples: Served) -> None:
    answer = infer(examples, "simple", tensor("INPUT0", "INT32", [1, 16], SIXTEEN[:-1]))
    assert answer.json()["error"].startswith("Failed to parse 'data' field: shape does not match true shape")
    assert json_outputs(add(examples)) == BOTH


@triton("L0_http/test.sh::more data than the shape says")
def test_more_data_than_the_shape_says(examples: Served) -> None:
    answer = infer(examples, "simple", tensor("INPUT0", "INT32", [1, 16], [*SIXTEEN, 17, 18]))
    assert answer.json()["error"].startswith("Unable to parse 'data': Shape does not match true shape of 'data' field")
    assert json_outputs(add(examples)) == BOTH


@triton("L0_http/test.sh::a base path in the client's URL")
def test_a_base_path(examples: Served) -> None:
    with (
        tritonclient.http.InferenceServerClient(f"{examples.http}/base_path") as client,
        pytest.raises(InferenceServerException),
    ):
        client.infer("onnx_zero_1_float32", tensors(tritonclient.http, {"INPUT0": EIGHT[None]}))
