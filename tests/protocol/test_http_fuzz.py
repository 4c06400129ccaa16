"""Requests with random damage, on a real socket: never a 500, never a dead server."""

import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.examples import examples
from support.hand_server import HandServer
from support.http_thread import serve_in_thread
from support.wire import VECTOR, binary_infer, get, infer, post
from triune.core.errors import InvalidArgumentError
from triune.core.requests import InferenceRequest, InferenceResponse
from triune.frontends.limits import Limits

REQUESTS = [
    infer(id="i", parameters={"priority": 1}, outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}]),
    binary_infer(VECTOR.tobytes()),
    post("/v2/models/identity/infer", VECTOR.tobytes(), {"Inference-Header-Content-Length": "0"}),
    post("/v2/models/identity/infer", b"{}", {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}),
    post("/v2/models/repeat/generate_stream", b'{"IN":[1,2,3]}'),
    post("/v2/repository/models/m/load", b'{"parameters":{"config":"{}","file:1/m":"AAEC"}}'),
    post("/v2/repository/index", b'{"ready":true}'),
    get("/v2/models/identity/config"),
    b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
]
# What a bad request may be answered with: anything but a defect.
KNOWN_STATUSES = {200, 100, 307, 400, 404, 405, 408, 413, 431, 501}


class CheckingServer(HandServer):
    """As the real one: a request without its input is the client's error."""

    async def stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        if request.model == "repeat" and "IN" not in request.inputs:
            raise InvalidArgumentError("input 'IN' is missing")
        async with contextlib.aclosing(super().stream(request)) as responses:
            async for response in responses:
                yield response


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    limits = Limits(request_bytes=1 << 16, head_bytes=1 << 12, receive_seconds=5, idle_seconds=5, linger_seconds=0.1)
    with serve_in_thread(CheckingServer(), limits) as port:
        yield port


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "insert", "delete", "repeat"])):
            case "flip":
                data[place] = draw(st.integers(0, 255))
            case "insert":
                data[place:place] = draw(st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\0", b'"', b"9" * 20]))
            case "delete":
                del data[place : place + draw(st.integers(1, 20))]
            case _:
                data[place:place] = data[place : place + draw(st.integers(1, 60))]
        data = data or bytearray(b"x")
    return bytes(data)


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(), st.lists(st.integers(0, 400), max_size=3))
def test_damage_is_never_a_defect(port: int, caplog: pytest.LogCaptureFixture, data: bytes, cuts: list[int]) -> None:
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
                connection.sendall(data[start:end])
            connection.sendall(get("/v2/health/live"))
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except TimeoutError:
            raise
        except OSError:
            pass
    statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)}
    assert statuses <= KNOWN_STATUSES, (data, received)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_the_server_still_serves(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(binary_infer(VECTOR.tobytes()))
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert np.array_equal(np.frombuffer(answer[-64:], np.float32), VECTOR.ravel())
