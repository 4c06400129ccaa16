"""The HTTP connection: order, keep-alive, flow control, disconnects, shutdown."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from support.hand_server import HandServer
from support.wire import VECTOR, Wire, binary_infer, get, head, infer, post, tensor
from triune.frontends.kserve.http.protocol import KServeProtocol
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits

BODY = json.dumps({"inputs": [tensor()]}).encode()
PATH = "/v2/models/identity/infer"


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def front_end(server: HandServer) -> AsyncIterator[HttpServer]:
    limits = Limits(request_bytes=4 << 20, receive_seconds=30, idle_seconds=30, send_seconds=30)
    front_end = HttpServer(server, "127.0.0.1", 0, limits=limits)  # type: ignore[arg-type]
    yield front_end
    await front_end.stop(0)


@pytest.fixture
async def port(front_end: HttpServer) -> int:
    return await front_end.start()


@pytest.fixture
async def connect(port: int) -> AsyncIterator[Callable[[], Awaitable[Wire]]]:
    wires: list[Wire] = []

    async def connect() -> Wire:
        wires.append(await Wire.open(port))
        return wires[-1]

    yield connect
    for wire in wires:
        await wire.close()


@pytest.fixture
async def wire(connect: Callable[[], Awaitable[Wire]]) -> Wire:
    return await connect()


async def test_an_inference_in_json(wire: Wire, server: HandServer) -> None:
    answer = await wire.ask(infer(id="seven", parameters={"priority": 2, "timeout": 9, "custom": "x"}))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "date" in answer.headers
    assert answer.json == {
        "id": "seven",
        "model_name": "identity",
        "model_version": "2",
        "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 16], "data": VECTOR.ravel().tolist()}],
    }
    (request,) = server.requests
    assert (request.priority, request.timeout_us, request.parameters) == (2, 9, {"custom": "x"})


async def test_an_inference_in_binary(wire: Wire) -> None:
    answer = await wire.ask(binary_infer(VECTOR.tobytes()))
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    assert answer.json["outputs"][0]["parameters"] == {"binary_data_size": 64}
    assert answer.body[size:] == VECTOR.tobytes()


async def test_a_raw_body_is_the_one_input(wire: Wire) -> None:
    answer = await wire.ask(post(PATH, VECTOR.tobytes(), {"Inference-Header-Content-Length": "0"}))
    assert answer.json["outputs"][0]["shape"] == [1, 16]
    assert answer.body.endswith(VECTOR.tobytes())


async def test_the_version_and_an_escaped_name_in_the_path(wire: Wire) -> None:
    for path in ("/v2/models/identity/versions/2/infer", "/v2/models/%69dentity/infer", PATH + "?trace=1"):
        assert (await wire.ask(post(path, BODY))).status == 200
    answer = await wire.ask(post("/v2/models/identity/versions/3/infer", BODY))
    assert (answer.status, answer.error) == (404, "model 'identity' has no version 3")


async def test_pipelined_inferences_and_app_requests_are_answered_in_order(wire: Wire, server: HandServer) -> None:
    await wire.send(
        infer("slow", id="a"), get("/v2"), infer(id="b"), infer("slow", id="c"), infer(id="d"), get("/v2/health/live")
    )
    await server.until_waiting(1)
    await asyncio.sleep(0.05)
    server.release(0)
    answers = [await wire.answer() for _ in range(3)]
    await server.until_waiting(2)
    server.release(1)
    answers += [await wire.answer() for _ in range(3)]
    assert [each.status for each in answers] == [200] * 6
    assert [answers[index].json["id"] for index in (0, 2, 3, 4)] == ["a", "b", "c", "d"]
    assert answers[1].json["name"] == "triune"


async def test_a_client_leaves_thousands_behind(connect: Callable[[], Awaitable[Wire]], server: HandServer) -> None:
    wire = await connect()
    await wire.send(infer("slow"), post(PATH, b"{}") * 2000)
    await server.until_waiting(1)
    await wire.close()
    server.release(0)
    assert (await (await connect()).ask(infer())).status == 200
    assert len(server.requests) == 2


async def test_one_pipelined_request_is_parsed_ahead(
    connect: Callable[[], Awaitable[Wire]], server: HandServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends thousands and leaves takes the time of the others otherwise."""
    begun: list[bytes] = []
    begin = KServeProtocol.on_headers_complete

    def noted(connection: KServeProtocol) -> None:
        begun.append(connection.url)
        begin(connection)

    monkeypatch.setattr(KServeProtocol, "on_headers_complete", noted)
    wire = await connect()
    sending = asyncio.create_task(wire.send(infer("slow"), get("/v2") * 1000, infer(id="last")))
    await server.until_waiting(1)
    await asyncio.sleep(0.1)
    assert len(begun) == 2
    server.release(0)
    answers = [await wire.answer() for _ in range(1002)]
    assert {each.status for each in answers} == {200}
    assert [each.json.get("name") for each in answers[1:-1]] == ["triune"] * 1000
    assert answers[-1].json["id"] == "last"
    await sending


async def test_a_head_is_learnt_from_its_own_bytes_alone(wire: Wire, server: HandServer) -> None:
    """A request that waits behind another is not mistaken for one with those that arrived behind it."""
    for turn in range(3):
        await wire.send(infer("slow", id="a"))
        await server.until_waiting(turn + 1)
        await wire.send(infer(id="b") + infer(id="c") + get("/v2"))
        await asyncio.sleep(0.05)
        server.release(turn)
        answers = [await wire.answer() for _ in range(4)]
        assert [each.json.get("id") for each in answers] == ["a", "b", "c", None]
        assert (await wire.ask(infer(id="d"))).json["id"] == "d"


async def test_thousands_wait_behind_a_slow_one(wire: Wire, server: HandServer) -> None:
    sending = asyncio.create_task(wire.send(infer("slow"), post(PATH, b"{}") * 5000, infer(id="last")))
    await server.until_waiting(1)
    await asyncio.sleep(0.1)
    server.release(0)
    assert (await wire.answer()).status == 200
    for _ in range(5000):
        assert (await wire.answer()).status == 400
    assert (await wire.answer()).json["id"] == "last"
    await sending


async def test_pipelining_without_end_is_not_read_without_end(wire: Wire, server: HandServer) -> None:
    await wire.send(infer("slow"))
    await server.until_waiting(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.send(infer() * 200_000), 2)


async def test_a_head_and_body_in_single_bytes(wire: Wire) -> None:
    for byte in infer(id="slow-typist"):
        wire.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await wire.answer()).json["id"] == "slow-typist"


async def test_a_chunked_body(wire: Wire) -> None:
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(BODY[i : i + 7]), BODY[i : i + 7]) for i in range(0, len(BODY), 7))
    start = head("POST", PATH, {"Host": "x", "Transfer-Encoding": "chunked"})
    answer = await wire.ask(start, chunks, b"0\r\nTrailer: yes\r\n\r\n")
    assert answer.status == 200
    assert (await wire.ask(infer())).status == 200


async def test_expect_100_continue(wire: Wire) -> None:
    await wire.send(head("POST", PATH, {"Host": "x", "Content-Length": str(len(BODY)), "Expect": "100-continue"}))
    assert (await wire.answer()).status == 100
    assert (await wire.ask(BODY)).status == 200
    await wire.send(head("POST", PATH, {"Host": "x", "Content-Length": str(1 << 40), "Expect": "100-continue"}))
    assert (await wire.answer()).status == 413


async def test_expect_waits_for_its_turn(wire: Wire, server: HandServer) -> None:
    expecting = head("POST", PATH, {"Host": "x", "Content-Length": str(len(BODY)), "Expect": "100-continue"})
    await wire.send(infer("slow"), expecting)
    await server.until_waiting(1)
    server.release(0)
    assert (await wire.answer()).status == 200
    assert (await wire.answer()).status == 100
    assert (await wire.ask(BODY)).status == 200


async def test_http_1_0_and_connection_close(connect: Callable[[], Awaitable[Wire]]) -> None:
    for request in (post(PATH, BODY, version="1.0"), post(PATH, BODY, {"Connection": "close"})):
        wire = await connect()
        answer = await wire.ask(request)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert await wire.is_closed()


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_an_upgrade_that_is_not_offered_goes_on_in_http(wire: Wire, upgrade: str) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": upgrade, "HTTP2-Settings": "AAMAAABk"}
    assert (await wire.ask(post(PATH, BODY, headers))).status == 200
    assert (await wire.ask(infer(), infer())).status == 200
    assert (await wire.answer()).status == 200
    assert (await wire.ask(post(PATH, BODY, headers), post(PATH, BODY, headers), get("/v2"))).status == 200
    assert (await wire.answer()).status == 200
    assert (await wire.answer()).json["name"] == "triune"


async def test_connect_is_refused(wire: Wire) -> None:
    assert (await wire.ask(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n")).status == 501


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
async def test_compressed_requests_and_responses(wire: Wire, encoding: str) -> None:
    body = json.dumps({"inputs": [tensor(shape=[1, 2000], data=[0.5] * 2000)]}).encode()
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding](body)
    answer = await wire.ask(post(PATH, packed, {"Content-Encoding": encoding, "Accept-Encoding": f"{encoding}, *;q=0"}))
    assert answer.headers.get("content-encoding", "identity") == encoding
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, "identity": bytes}[encoding]
    assert json.loads(unpack(answer.body))["outputs"][0]["data"] == [0.5] * 2000


async def test_a_client_that_leaves_cancels_its_inference(
    connect: Callable[[], Awaitable[Wire]], server: HandServer
) -> None:
    leaving, staying = await connect(), await connect()
    await leaving.send(infer("slow", id="leaving"))
    await server.until_waiting(1)
    await staying.send(infer("slow", id="staying"))
    await server.until_waiting(2)
    await leaving.close()
    await asyncio.wait((server.waiting[0][1],), timeout=60)
    assert server.waiting[0][1].cancelled()
    server.release(1)
    assert (await staying.answer()).json["id"] == "staying"


async def test_a_large_inference_both_ways(wire: Wire) -> None:
    data = np.random.default_rng(0).standard_normal((1000, 1000), np.float32).tobytes()
    for _ in range(3):
        answer = await wire.ask(binary_infer(data, shape=[1000, 1000]))
        assert answer.body.endswith(data)


async def test_a_client_that_does_not_read_gets_one_answer_buffered_and_no_more(wire: Wire, server: HandServer) -> None:
    data = bytes(3 << 20)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = binary_infer(data)
    sending = asyncio.create_task(wire.send(*[request] * 20))
    await asyncio.sleep(0.5)
    # What the kernel's buffers take is a few answers; the others wait unread.
    assert len(server.requests) < 10
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(20):
        assert len((await wire.answer()).body) > len(data)
    await sending


async def test_stopping_lets_the_inference_under_way_finish(
    connect: Callable[[], Awaitable[Wire]], server: HandServer, front_end: HttpServer
) -> None:
    busy, idle = await connect(), await connect()
    assert (await idle.ask(infer())).status == 200
    await busy.send(infer("slow", id="busy"))
    await server.until_waiting(1)
    stopping = asyncio.create_task(front_end.stop(600))
    assert await idle.is_closed()
    server.release(0)
    answer = await busy.answer()
    assert answer.json["id"] == "busy"
    assert answer.headers["connection"] == "close"
    await asyncio.wait_for(stopping, 60)


async def test_stopping_ends_what_does_not_finish(wire: Wire, server: HandServer, front_end: HttpServer) -> None:
    await wire.send(infer("slow"))
    await server.until_waiting(1)
    await asyncio.wait_for(front_end.stop(0), 60)
    assert await wire.is_closed()
    await asyncio.sleep(0)
    assert server.waiting[0][1].cancelled()


async def test_a_repeated_head_is_understood_however_it_is_cut(wire: Wire, server: HandServer) -> None:
    vectors = [VECTOR + index for index in range(4)]
    request, others = binary_infer(vectors[0].tobytes()), [binary_infer(each.tobytes()) for each in vectors[1:]]
    answer = await wire.ask(request)
    assert answer.body.endswith(vectors[0].tobytes())
    # Whole, in two pieces cut anywhere, pipelined behind one another, and with a piece of the next behind it.
    for index in range(1, len(request), 7):
        await wire.send(request[:index])
        await asyncio.sleep(0)
        await wire.send(request[index:], others[0], others[1], others[2][:index])
        for vector in vectors[:3]:
            assert (await wire.answer()).body.endswith(vector.tobytes())
        assert (await wire.ask(others[2][index:])).body.endswith(vectors[3].tobytes())
        assert (await wire.ask(request)).body.endswith(vectors[0].tobytes())


async def test_a_repeated_head_waits_for_its_turn_behind_a_slow_answer(wire: Wire, server: HandServer) -> None:
    request = post("/v2/models/slow/infer", BODY)
    await wire.send(request)
    await server.arrived.wait()
    quick = binary_infer(VECTOR.tobytes())
    await wire.send(quick)
    server.release(0)
    assert (await wire.answer()).json["model_name"] == "slow"
    assert (await wire.answer()).body.endswith(VECTOR.tobytes())
    for _ in range(2):
        assert (await wire.ask(quick)).body.endswith(VECTOR.tobytes())
    server.arrived.clear()
    await wire.send(request)
    await server.arrived.wait()
    await wire.send(quick)
    server.release(1)
    assert (await wire.answer()).json["model_name"] == "slow"
    assert (await wire.answer()).body.endswith(VECTOR.tobytes())


async def test_a_repeated_head_with_a_broken_body_is_refused(wire: Wire) -> None:
    good = post(PATH, BODY)
    assert (await wire.ask(good)).status == 200
    assert (await wire.ask(good[: -len(BODY)] + b"[" * len(BODY))).status == 400
    assert (await wire.ask(good)).status == 200


@pytest.mark.parametrize(
    "target", ["http://[bad/v2", "http://x:99999/v2", "http://x:y/v2", "http:///v2", "http://@/v2", "http://x"]
)
async def test_a_target_without_a_path(connect: Callable[[], Awaitable[Wire]], target: str) -> None:
    wire = await connect()
    answer = await wire.ask(get(target))
    assert answer.status == 400
    assert answer.error == (
        f"the request is not valid HTTP: its target '{target}' is not a URL with a path; send a path, such as /v2"
    )


async def test_a_target_with_a_host(connect: Callable[[], Awaitable[Wire]]) -> None:
    wire = await connect()
    assert (await wire.ask(get("http://[::1]:80/v2/health/live"))).status == 200
