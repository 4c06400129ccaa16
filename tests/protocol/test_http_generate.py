"""Triton's generate extension on a real socket."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.hand_server import HandServer
from support.wire import Wire, get, post
from triune.core.errors import UnavailableError
from triune.frontends.kserve.http.server import HttpServer


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def wire(server: HandServer) -> AsyncIterator[Wire]:
    front_end = HttpServer(server, "127.0.0.1", 0)  # type: ignore[arg-type]
    wire = await Wire.open(await front_end.start())
    yield wire
    await wire.close()
    await front_end.stop(0)


def generate(model: str, /, *, stream: bool = False, **fields: Any) -> bytes:
    path = f"/v2/models/{model}/generate" + ("_stream" if stream else "")
    return post(path, json.dumps(fields).encode())


def events(body: bytes) -> list[Any]:
    parts = body.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [json.loads(part.removeprefix("data: ")) for part in parts]


async def test_inputs_by_name_and_outputs_side_by_side(wire: Wire, server: HandServer) -> None:
    server.parameters = {"tokens": 16}
    values = [float(each) for each in range(16)]
    answer = await wire.ask(
        generate("identity", id="g", INPUT0=values, temperature=0.5, parameters={"stream": False, "priority": 3})
    )
    assert answer.json == {"id": "g", "model_name": "identity", "model_version": "2", "tokens": 16, "OUTPUT0": values}
    (request,) = server.requests
    assert request.inputs["INPUT0"].shape == (1, 16)
    assert (request.parameters, request.priority) == ({"temperature": 0.5, "stream": False}, 3)


async def test_free_dimensions_take_what_is_given(wire: Wire, server: HandServer) -> None:
    assert (await wire.ask(generate("identity", INPUT0=[0.5] * 48))).status == 200
    assert server.requests[0].inputs["INPUT0"].shape == (3, 16)
    assert (await wire.ask(generate("repeat", IN=5))).json["OUT"] == 5


async def test_an_input_within_parameters_and_a_version(wire: Wire, server: HandServer) -> None:
    request = post("/v2/models/repeat/versions/2/generate", json.dumps({"parameters": {"IN": [4]}}).encode())
    assert (await wire.ask(request)).json["OUT"] == 4
    assert server.requests[0].version == 2


@pytest.mark.parametrize("model", ["repeat", "identity"])
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests(wire: Wire, stream: bool, model: str) -> None:
    name = "IN" if model == "repeat" else "INPUT0"
    for fields, message in (
        ({name: [[1, 2], [3, 4]]}, "but 'data' holds"),
        ({name: ["x"]}, "cannot fill" if model == "identity" else "takes integers"),
        ({name: {"a": 1}}, "cannot fill" if model == "identity" else "but holds an object"),
        ({"other": None}, "parameter 'other' has invalid type"),
        ({"other": [1]}, "parameter 'other' has invalid type"),
        ({"parameters": 3}, "Expected JSON object for keyword: 'parameters'"),
        ({"id": 3}, "'id' must be a string"),
        ({"x": 1, "parameters": {"x": 2}}, "'x' is given twice"),
    ):
        if model == "identity" and "holds" in message:
            message = "cannot fill"
        answer = await wire.ask(generate(model, stream=stream, **fields))
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        assert message in answer.error
    assert (await wire.ask(generate("unknown", stream=stream))).status == 404
    assert (await wire.ask(get(f"/v2/models/{model}/generate"))).status == 405


async def test_a_stream_of_events(wire: Wire) -> None:
    answer = await wire.ask(generate("repeat", stream=True, id="s", IN=[1, 2, 3]))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [each["OUT"] for each in events(answer.body)] == [1, 2, 3]
    assert {each["id"] for each in events(answer.body)} == {"s"}
    answer = await wire.ask(generate("repeat", stream=True, says_final=True, IN=[7]))
    assert [each["OUT"] for each in events(answer.body)] == [7]
    answer = await wire.ask(generate("repeat", stream=True, IN=[]))
    assert (answer.status, answer.body) == (200, b"")


async def test_an_error_before_and_after_the_first_event(wire: Wire) -> None:
    answer = await wire.ask(generate("repeat", stream=True, IN=[-1]))
    assert (answer.status, answer.error) == (500, "-1 cannot be repeated")
    answer = await wire.ask(generate("repeat", stream=True, IN=[1, -1]))
    assert answer.status == 200
    assert events(answer.body)[1] == {"error": "-1 cannot be repeated"}
    answer = await wire.ask(generate("identity", INPUT0=[0.0] * 16))
    assert answer.status == 200


@pytest.mark.parametrize("values", [[], [1, 2]])
async def test_generate_takes_exactly_one_response(wire: Wire, server: HandServer, values: list[int]) -> None:
    answer = await wire.ask(generate("repeat", IN=values))
    assert answer.status == 400
    assert "use 'generate_stream'" in answer.error
    assert server.num_open_streams == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_stream(wire: Wire, server: HandServer, stream: bool) -> None:
    model, fields = ("repeat", {"IN": [1] * 5000}) if stream else ("slow", {"INPUT0": [0.0] * 16})
    await wire.send(generate(model, stream=stream, **fields))
    if stream:
        await wire.reader.readuntil(b"data: ")
        assert server.num_open_streams == 1
        await wire.close()
        async with asyncio.timeout(60):
            while server.num_open_streams:
                await asyncio.sleep(0.01)
    else:
        await server.until_waiting(1)
        await wire.close()
        await asyncio.wait((server.waiting[0][1],), timeout=60)
        assert server.waiting[0][1].cancelled()


async def test_a_client_that_leaves_before_the_first_event_withdraws_its_request(
    wire: Wire, server: HandServer
) -> None:
    await wire.send(generate("slow", stream=True, INPUT0=[0.0] * 16))
    await server.until_waiting(1)
    await wire.close()
    await asyncio.wait((server.waiting[0][1],), timeout=60)
    assert server.waiting[0][1].cancelled()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_models_error_and_a_compressed_request(wire: Wire, server: HandServer, stream: bool) -> None:
    server.error = UnavailableError("full")
    body = gzip.compress(json.dumps({"INPUT0": [0.0] * 16}).encode())
    path = "/v2/models/failing/generate" + ("_stream" if stream else "")
    answer = await wire.ask(post(path, body, {"Content-Encoding": "gzip"}))
    assert (answer.status, answer.error) == (503, "full")
    answer = await wire.ask(generate("defective", stream=stream, INPUT0=[0.0] * 16))
    assert answer.status == 500
    assert "KeyError" in answer.error


@pytest.mark.parametrize("headers", [{}, {"Connection": "keep-alive"}])
async def test_http_1_0_reads_events_until_the_connection_closes(wire: Wire, headers: dict[str, str]) -> None:
    body = json.dumps({"IN": [1, 2, 3]}).encode()
    await wire.send(post("/v2/models/repeat/generate_stream", body, headers, version="1.0"))
    async with asyncio.timeout(60):
        head, _, rest = (await wire.reader.read()).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert [each["OUT"] for each in events(rest)] == [1, 2, 3]


@pytest.mark.parametrize("path", ["/v2/models/repeat/generate", "/v2/models/identity/infer"])
async def test_http_1_0_knows_no_100_continue(wire: Wire, path: str) -> None:
    head, _, body = post(path, b"[]", {"Expect": "100-continue"}, version="1.0").partition(b"\r\n\r\n")
    await wire.send(head, b"\r\n\r\n")
    await asyncio.sleep(0.1)
    answer = await wire.ask(body)
    assert answer.status == 400
    assert await wire.is_closed()
