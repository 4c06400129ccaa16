"""L0_http: how large requests may be, and in how many chunks they may come."""

import base64
import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from support.process import Served, serve
from support.repositories import write_model
from support.triton_qa import JSON, RAW, STRING, post, refused, tensor, zero

triton = pytest.mark.triton
LIMIT = 1 << 20


# Chunks.


def send_chunks(served: Served, model: str, num_chunks: int) -> tuple[int, str]:
    """The status and the body of the answer to a raw request of so many chunks of a byte."""
    host, port = served.http.split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nInference-Header-Content-Length: 0\r\nHost: {host}\r\n"
        head += "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        # Refused half way, the answer says why.
        with contextlib.suppress(ConnectionError):
            connection.sendall(head.encode() + b"1\r\nA\r\n" * num_chunks + b"0\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


@triton("L0_http/http_request_many_chunks.py::test_chunked_infer_at_max_chunks")
def test_as_many_chunks_as_triton_takes(examples: Served) -> None:
    status, answer = send_chunks(examples, "simple", 65536)
    assert status == 400
    assert "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'simple'" in answer


MANY = "Chunked request body exceeds maximum of {} non-empty chunks. Send fewer or larger HTTP chunks."


@triton("L0_http/http_request_many_chunks.py::test_chunked_infer_rejected_over_max_chunks")
def test_one_chunk_more_than_triton_takes(examples: Served) -> None:
    status, answer = send_chunks(examples, "simple", 65537)
    assert status == 400
    assert MANY.format(65536) in answer


@triton("L0_http/http_request_many_chunks.py::test_chunked_infer_over_max_chunks_reject_with_bounded_rss_growth")
def test_far_too_many_chunks_leave_nothing(examples: Served) -> None:
    send_chunks(examples, "simple", 300_000)
    before = memory_bytes(examples)
    for _ in range(5):
        _, answer = send_chunks(examples, "simple", 300_000)
        assert "chunks" in answer
    assert memory_bytes(examples) - before < 4 << 20


def memory_bytes(served: Served) -> int:
    return psutil.Process(served.process.pid).memory_info().rss


@triton("L0_http/http_input_size_limit_test.py::test_no_leak_on_invalid_inference_header_length")
def test_refused_compressed_bodies_leave_nothing(examples: Served) -> None:
    headers = {**JSON, "Content-Encoding": "gzip", "Inference-Header-Content-Length": "9999999"}
    body = gzip.compress(b" " * (1 << 20))
    with requests.Session() as session:
        url = f"http://{examples.http}/v2/models/onnx_zero_1_float32/infer"
        for _ in range(10):
            assert session.post(url, data=body, headers=headers).status_code == 400
        before = memory_bytes(examples)
        for _ in range(100):
            assert session.post(url, data=body, headers=headers).status_code == 400
    assert memory_bytes(examples) - before < 32 << 20


# Sizes. Triton's cases send 64 MiB, its default, and 128 MiB; here the limit is smaller.


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("limited")
    write_model(folder, "onnx_zero_1_float32", "max_batch_size: 8", v1=zero())
    write_model(folder, "simple_identity", "max_batch_size: 8", v1=zero(STRING))
    with serve(folder, f"--http-max-input-size={LIMIT}", "--model-control-mode=explicit", "--load-model=*") as served:
        yield served


def json_of(num_bytes: int) -> bytes:
    """An inference of so many bytes of JSON: numbers, and blanks before the last brace."""
    values = [1.0] * (num_bytes // 5 - 100)
    text = json.dumps({"inputs": [tensor(shape=[1, len(values)], data=values)]})
    return (text[:-1] + " " * (num_bytes - len(text)) + "}").encode()


def string_of(num_bytes: int) -> bytes:
    text = json.dumps({"inputs": [tensor(datatype="BYTES", shape=[1, 1], data=["VALUE"])]})
    return text.replace("VALUE", "A" * (num_bytes - len(text) + 5)).encode()


def raw_of(num_bytes: int) -> bytes:
    return np.ones(num_bytes // 4, np.float32).tobytes()


def packed_of(num_bytes: int) -> bytes:
    return gzip.compress(json_of(num_bytes))


RAW_WORDS = ("exceeds the maximum allowed value",)
JSON_WORDS = ("request JSON size of ", " bytes exceeds the maximum allowed input size of ")
PACKED = {**JSON, "Content-Encoding": "gzip"}
SIZES = "L0_http/http_input_size_limit_test.py::"


@pytest.mark.parametrize(
    ("model", "make", "headers", "words"),
    [
        pytest.param(
            "onnx_zero_1_float32", raw_of, RAW, RAW_WORDS,
            marks=triton(SIZES + "test_default_limit_raw_binary", SIZES + "test_large_input_raw_binary"),
        ),
        pytest.param(
            "onnx_zero_1_float32", json_of, JSON, JSON_WORDS,
            marks=triton(SIZES + "test_default_limit_json", SIZES + "test_large_input_json"),
        ),
        pytest.param(
            "simple_identity", string_of, JSON, JSON_WORDS, marks=triton(SIZES + "test_large_string_in_json")
        ),
        pytest.param(
            "onnx_zero_1_float32", packed_of, PACKED, RAW_WORDS,
            marks=triton(SIZES + "test_default_limit_compressed", SIZES + "test_large_input_compressed"),
        ),
    ],
)  # fmt: skip
def test_the_largest_request(
    limited: Served, model: str, make: Callable[[int], bytes], headers: dict[str, str], words: tuple[str, ...]
) -> None:
    path = f"v2/models/{model}/infer"
    assert post(limited, path, make(LIMIT), headers).status_code == 200
    refused(post(limited, path, make(LIMIT + 4), headers), 400, *words)


@pytest.mark.parametrize(
    ("model", "make", "headers"),
    [
        ("onnx_zero_1_float32", raw_of, RAW),
        ("onnx_zero_1_float32", json_of, JSON),
        ("simple_identity", string_of, JSON),
        ("onnx_zero_1_float32", packed_of, PACKED),
    ],
)
def test_the_largest_request_as_triune_has_it(
    limited: Served, model: str, make: Callable[[int], bytes], headers: dict[str, str]
) -> None:
    path = f"v2/models/{model}/infer"
    assert post(limited, path, make(LIMIT), headers).status_code == 200
    refused(post(limited, path, make(LIMIT + 4), headers), 413, *RAW_WORDS, "Use --http-max-input-size to increase")


@triton(
    SIZES + "test_json_dtype_size_expansion_exceeds_limit_error",
    "L0_http/generate_endpoint_test.py::test_json_dtype_size_expansion_exceeds_limit_error",
)
def test_a_body_that_grows_when_it_is_decoded(limited: Served) -> None:
    inputs = [tensor(datatype="INT64", shape=[1, LIMIT // 8], data=base64.b64encode(bytes(LIMIT)).decode())]
    answer = post(limited, "v2/models/onnx_zero_1_float32/generate", {"inputs": inputs}, JSON)
    refused(answer, 400, *JSON_WORDS, "Use --http-max-input-size to increase the limit.")


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, marks=triton("L0_http/test.sh::--http-max-input-size=0")),
        pytest.param(-1024, marks=triton("L0_http/test.sh::--http-max-input-size=-1024")),
    ],
)
def test_a_limit_that_is_none(tmp_path: Path, size: int) -> None:
    with (
        pytest.raises(AssertionError, match="the server ended with [12]"),
        serve(tmp_path, f"--http-max-input-size={size}"),
    ):
        pass


@triton("L0_http/http_test.py::test_loading_large_invalid_model")
def test_a_load_of_more_json_than_is_taken(limited: Served) -> None:
    # Triton's test sends 2.7 GiB where 64 MiB are the limit.
    files = {"file:1/model.onnx": base64.b64encode(bytes(LIMIT)).decode()}
    body = {"parameters": {"config": json.dumps({"backend": "onnxruntime"}), **files}}
    answer = post(limited, "v2/repository/models/invalid_onnx/load", body, JSON)
    assert answer.status_code != 200
    assert "request JSON size" in answer.json()["error"]
    assert " exceeds the maximum allowed input size" in answer.json()["error"]


def test_a_large_load_with_a_config_is_taken(examples: Served) -> None:
    # A config's JSON within the JSON, beside a long string: once that took gigabytes.
    files = {"file:1/model.onnx": base64.b64encode(bytes(30 << 20)).decode()}
    body = {"parameters": {"config": json.dumps({"backend": "onnxruntime"}), **files}}
    refused(post(examples, "v2/repository/models/invalid_onnx/load", body, JSON), 400, "load failed for model")
