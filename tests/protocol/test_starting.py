"""A server that answers while its models load."""

import http.client
import json
import subprocess
import time
from collections.abc import Iterator

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.process import TRIUNE, free_ports
from support.repositories import WARM_UP, turning, write_model

FIELDS: dict[str, object] = {"model": "never", "max_tokens": 1}
MESSAGES: dict[str, object] = {**FIELDS, "messages": [{"role": "user", "content": "x"}]}
HEADERS = {"Content-Type": "application/json", "anthropic-version": "2023-06-01"}
ROUTES = [
    *(
        ("GET", f"/v2/models/never{version}{route}", {})
        for version in ("", "/versions/1")
        for route in ("", "/config", "/stats", "/placement")
    ),
    *(("POST", f"/v2/models/never/{route}", {"inputs": []}) for route in ("infer", "generate", "generate_stream")),
    ("GET", "/v1/models/never", {}),
    ("GET", "/v1/models/never:adapter", {}),
    ("POST", "/v1/chat/completions", MESSAGES),
    ("POST", "/v1/completions", {**FIELDS, "prompt": "x"}),
    ("POST", "/v1/responses", {"model": "never", "input": "x"}),
    ("POST", "/v1/embeddings", {"model": "never", "input": "x"}),
    ("POST", "/v1/messages", MESSAGES),
    ("POST", "/v1/messages/count_tokens", {"model": "never", "messages": MESSAGES["messages"]}),
]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """HTTP and gRPC of a server that lives, and whose only model loads for ever."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "never", WARM_UP, v1=turning(2**62))
    http_port, grpc_port, metrics_port = free_ports(3)
    flags = [f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}"]
    command = [TRIUNE, "serve", f"--repository={folder}", *flags, "--exit-timeout-secs=1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while status(http_port, "GET", "/v2/health/live", {}) != 200:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)
            yield http_port, grpc_port
        finally:
            process.terminate()


def status(port: int, method: str, path: str, body: dict[str, object]) -> int | None:
    """The status of a request; None if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        content = json.dumps(body) if method == "POST" else None
        connection.request(method, path, content, HEADERS)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_model_that_loads_is_not_there_yet(
    ports: tuple[int, int], method: str, path: str, body: dict[str, object]
) -> None:
    # Anthropic's API has a status of its own.
    assert status(ports[0], method, path, body) == (529 if path.startswith("/v1/messages") else 503)


def test_a_model_that_loads_is_not_there_yet_over_grpc(ports: tuple[int, int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="never")),
            (stub.ModelConfig, service_pb2.ModelConfigRequest(name="never", version="1")),
            (stub.ModelStatistics, service_pb2.ModelStatisticsRequest(name="never")),
            (stub.ModelInfer, service_pb2.ModelInferRequest(model_name="never")),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                call(request, timeout=60)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_server_lives_and_is_not_ready(ports: tuple[int, int]) -> None:
    assert status(ports[0], "GET", "/v2/health/live", {}) == 200
    # Triton's status of what is not ready.
    for path in ("/v2/health/ready", "/v2/models/never/ready", "/v2/models/never/versions/1/ready"):
        assert status(ports[0], "GET", path, {}) == 400
    assert status(ports[0], "GET", "/v2/models/unknown", {}) == 404
    assert status(ports[0], "GET", "/v1/models/unknown", {}) == 404
    assert status(ports[0], "GET", "/v1/models", {}) == 200
