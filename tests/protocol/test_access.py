"""A server with API keys, as clients find it on every port."""

import asyncio
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from support.process import Served, serve
from support.repositories import affine, write_model
from support.triton_tensors import tensors

KEY = {"Authorization": "Bearer rose-7Q"}
WRONG = {"Authorization": "Bearer tulip-9"}
X = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_model(made, "affine", v1=affine())
    write_model(made, "apart", 'parameters { key: "own_process" value { string_value: "true" } }', v1=affine())
    return made


@pytest.fixture(scope="module")
def keyed(folder: Path) -> Iterator[Served]:
    """Keys from the environment and from a file."""
    (folder.parent / "keys").write_text("lily-3\n")
    os.environ["TRIUNE_API_KEY"] = "rose-7Q other-1"
    try:
        with serve(
            folder, "--model-control-mode=explicit", "--load-model=*", f"--api-key-file={folder.parent}/keys"
        ) as served:
            yield served
        text = "".join(served.lines)
        assert not [key for key in ("rose-7Q", "lily-3", "tulip-9", "other-1") if key in text]
    finally:
        del os.environ["TRIUNE_API_KEY"]


def status(url: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{url}", headers=headers, method=method, data=body)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_the_processes_that_run_models_do_not_inherit_the_keys(keyed: Served) -> None:
    assert keyed.process is not None
    workers = [each for each in psutil.Process(keyed.process.pid).children() if "/apart/" in " ".join(each.cmdline())]
    assert workers
    for each in workers:
        environment = each.environ()
        assert "PATH" in environment
        assert "TRIUNE_API_KEY" not in environment
        assert "rose-7Q" not in str(environment)


PATHS = [
    ("GET", "/v2", 200),
    ("GET", "/v2/models/affine", 200),
    ("GET", "/v2/models/affine/versions/1", 200),
    ("GET", "/v2/models/affine/config", 200),
    ("GET", "/v2/models/affine/stats", 200),
    ("GET", "/v2/models/stats", 200),
    ("GET", "/v2/power", 200),
    ("POST", "/v2/power", 400),
    ("POST", "/v2/repository/index", 200),
    ("POST", "/v2/repository/models/affine/load", 200),
    ("POST", "/v2/models/affine/generate", 400),
    ("POST", "/v2/models/affine/generate_stream", 400),
    ("POST", "/v2/models/affine/infer", 400),
    ("POST", "/v2/models/affine/versions/x/infer", 404),
    ("POST", "/v2/models/%61ffine/infer", 400),
    ("GET", "/v2/systemsharedmemory/status", 501),
    ("GET", "/v2/trace/setting", 501),
    ("GET", "/v2/logging", 501),
]


@pytest.mark.parametrize(("method", "path", "expected"), PATHS)
def test_http_asks_for_a_key(keyed: Served, method: str, path: str, expected: int) -> None:
    body = b"{}" if method == "POST" else None
    for headers in ({}, WRONG, {"Authorization": "rose-7Q"}):
        found, answer = status(keyed.http + path, headers, method, body)
        assert (found, answer["WWW-Authenticate"]) == (401, "Bearer")
    for key in ("rose-7Q", "other-1", "lily-3"):
        assert status(keyed.http + path, {"Authorization": f"Bearer {key}"}, method, body)[0] == expected


def test_every_path_that_is_served_is_tried() -> None:
    from triune.app import make_repository
    from triune.frontends.access import Access
    from triune.frontends.kserve.http.app import make_app
    from triune.repository.settings import RepositorySettings
    from triune.serving.server import Server

    rules = Access.of(["key"]).http
    server = Server(make_repository(RepositorySettings([])))
    open_app = make_app(server, Any, Any)  # type: ignore[arg-type]
    closed = make_app(server, Any, Any, rules=rules)  # type: ignore[arg-type]
    left = [a.path for a, b in zip(open_app.routes, closed.routes, strict=True) if b.endpoint.__name__ != "checked"]  # type: ignore[attr-defined]
    health = [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/versions/{version}/ready",
    ]
    assert left == health


async def test_routes_of_other_front_ends_ask_for_a_key(folder: Path) -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    from triune.app import make_repository
    from triune.frontends.access import Access, Api
    from triune.frontends.bodies.reader import BodyReader
    from triune.frontends.kserve.http.server import HttpServer
    from triune.frontends.routes import ApiRoute
    from triune.repository.settings import RepositorySettings
    from triune.serving.server import Server

    num_read = 0

    def more(bodies: BodyReader) -> list[ApiRoute]:
        async def echo(request: Request) -> Response:
            nonlocal num_read
            num_read += 1
            return JSONResponse(await bodies.small_object(request))

        return [ApiRoute(Api.INFERENCE, "/v1/echo", echo, ("POST",))]

    server = Server(make_repository(RepositorySettings([folder])))
    front_end = HttpServer(server, "127.0.0.1", 0, rules=Access.of(["rose-7Q"]).http, more_routes=more)
    url = f"127.0.0.1:{await front_end.start()}/v1/echo"
    try:
        for headers in ({}, WRONG):
            found, answer = await asyncio.to_thread(status, url, headers, "POST", b"{}")
            assert (found, answer["WWW-Authenticate"], num_read) == (401, "Bearer", 0)
        assert (await asyncio.to_thread(status, url, KEY, "POST", b"{}"))[0] == 200
    finally:
        await front_end.stop(1.0)
    assert num_read == 1


def test_health_is_open(keyed: Served) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/affine/ready"):
        assert status(keyed.http + path, {})[0] == 200
    with grpc.insecure_channel(keyed.grpc) as channel:
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


def test_metrics_ask_for_a_key(keyed: Served) -> None:
    found, answer = status(f"{keyed.metrics}/metrics", WRONG)
    assert (found, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert status(f"{keyed.metrics}/metrics", KEY)[0] == 200


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc])
def test_tritonclient_sends_it(keyed: Served, module: Any) -> None:
    address = keyed.http if module is tritonclient.http else keyed.grpc
    right, wrong = ({name.lower(): value for name, value in each.items()} for each in (KEY, WRONG))
    with module.InferenceServerClient(address) as client:
        for _ in range(3):
            with pytest.raises(InferenceServerException, match="API key") as refused:
                client.infer("affine", tensors(module, {"x": X}), headers=wrong)
            assert refused.value.status() in ("401", "StatusCode.UNAUTHENTICATED")
            with pytest.raises(InferenceServerException, match="the server asks for an API key"):
                client.infer("affine", tensors(module, {"x": X}))
            answer = client.infer("affine", tensors(module, {"x": X}), headers=right)
            assert answer.as_numpy("y").tolist() == [[2.0] * 4]


def test_a_known_head_opens_for_its_own_key_alone(keyed: Served) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,1,1,1]}]}'

    def ask(key: str) -> bytes:
        head = f"POST /v2/models/affine/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        host, port = keyed.http.split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(request)
            return connection.recv(65536).split(b"\r\n")[0]

    for _ in range(3):
        assert ask("rose-7Q").endswith(b"200 OK")
        assert ask("rose-7q").endswith(b"401 Unauthorized")


def test_a_large_body_is_not_kept_for_a_stranger(keyed: Served) -> None:
    host, port = keyed.http.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "method", [each.name for each in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
)
def test_grpc_asks_for_a_key(keyed: Served, method: str) -> None:
    described = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method]
    request = getattr(service_pb2, described.input_type.name)()
    with grpc.insecure_channel(keyed.grpc) as channel:
        call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)

        def code(metadata: list[tuple[str, str]]) -> grpc.StatusCode:
            try:
                if method == "ModelStreamInfer":
                    list(call(iter([]), metadata=metadata, timeout=60))
                else:
                    call(request, metadata=metadata, timeout=60)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        is_open = method in ("ServerLive", "ServerReady", "ModelReady")
        for metadata in ([], [("authorization", "Bearer tulip-9")]):
            assert (code(metadata) is grpc.StatusCode.UNAUTHENTICATED) is not is_open
        assert code([("authorization", "Bearer rose-7Q")]) is not grpc.StatusCode.UNAUTHENTICATED
