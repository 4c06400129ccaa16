"""What is large: it goes off the loop, within one memory budget that every way out of a request gives back."""

import asyncio
import gc
import gzip
import json
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from support.hand_server import HandServer
from support.wire import Wire, binary_infer, get, head, infer, post, tensor
from triune.core.errors import TriuneError
from triune.core.requests import InferenceResponse
from triune.frontends.bodies.budget import MemoryBudget
from triune.frontends.bodies.offload import Offload
from triune.frontends.kserve.http import large_requests as large_requests
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits
from triune.frontends.openai import openai_routes

PATH = "/v2/models/identity/infer"
LIMIT = 64 << 20
LARGE = np.random.default_rng(0).standard_normal((1, 1 << 20), np.float32)
GZIP = {"Content-Encoding": "gzip"}
MANY = {f"p{number}": number for number in range(5000)}


@pytest.fixture(scope="module")
def offload() -> Iterator[Offload]:
    """One process for all tests here: starting it takes a second."""
    offload = Offload(num_threads=2, num_processes=1)
    yield offload
    offload.close()


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(LIMIT)


@pytest.fixture
async def connect(
    server: HandServer, budget: MemoryBudget, offload: Offload
) -> AsyncIterator[Callable[[], Awaitable[Wire]]]:
    limits = Limits(send_seconds=0.5, connections=3, json_bytes=8 << 20)
    front_end = HttpServer(
        server,  # type: ignore[arg-type]
        "127.0.0.1",
        0,
        limits=limits,
        budget=budget,
        offload=offload,
        more_routes=lambda bodies: openai_routes(server, bodies, offload),  # type: ignore[arg-type]
    )
    port = await front_end.start()
    wires: list[Wire] = []

    async def open_wire() -> Wire:
        wires.append(await Wire.open(port))
        return wires[-1]

    yield open_wire
    for wire in wires:
        await wire.close()
    async with asyncio.timeout(60):
        while budget.reserved_bytes:
            await asyncio.sleep(0.01)
    await front_end.stop(0)


@pytest.fixture
async def wire(connect: Callable[[], Awaitable[Wire]]) -> Wire:
    return await connect()


async def others_meanwhile(wire: Wire, work: Awaitable[Any]) -> tuple[Any, int]:
    """What `work` gives, and how many health checks were answered before it was done."""
    task = asyncio.ensure_future(work)
    count = 0
    while not task.done():
        assert (await wire.ask(get("/v2/health/live"))).status == 200
        count += 1
    return task.result(), count


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_large_json_is_parsed_apart(connect: Callable[[], Awaitable[Wire]], encoding: str) -> None:
    values = LARGE.ravel()[:200_000]
    body = json.dumps({"inputs": [tensor(shape=[1, 200_000], data=values.tolist())], "id": "many"}).encode()
    packed = gzip.compress(body, 1) if encoding == "gzip" else body
    wire, other = await connect(), await connect()
    answer, count = await others_meanwhile(other, wire.ask(post(PATH, packed, {"Content-Encoding": encoding})))
    assert count > 1
    assert answer.json["id"] == "many"
    assert np.array_equal(np.array(answer.json["outputs"][0]["data"], np.float32), values)


async def test_large_bytes_are_decoded_off_the_loop(wire: Wire, server: HandServer) -> None:
    elements = [b"%d" % index for index in range(20_000)]
    data = b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    item = tensor(datatype="BYTES", shape=[20_000], data=None, parameters={"binary_data_size": len(data)})
    text = json.dumps({"inputs": [item], "parameters": {"binary_data_output": True}}).encode()
    answer = await wire.ask(post(PATH, text + data, {"Inference-Header-Content-Length": str(len(text))}))
    assert answer.body[int(answer.headers["inference-header-content-length"]) :] == data
    assert server.requests[0].inputs["INPUT0"].tolist() == elements
    texts = [each.decode() for each in elements]
    answer = await wire.ask(infer(inputs=[tensor(datatype="BYTES", shape=[20_000], data=texts)]))
    assert answer.json["outputs"][0]["data"] == texts


async def test_numbers_that_are_not_finite_survive_in_large_answers(wire: Wire) -> None:
    array = np.zeros((1, 20_000), np.float32)
    array[0, ::1000] = np.inf
    item = tensor(shape=[1, 20_000], data=None, parameters={"binary_data_size": array.nbytes})
    text = json.dumps({"inputs": [item]}).encode()
    answer = await wire.ask(post(PATH, text + array.tobytes(), {"Inference-Header-Content-Length": str(len(text))}))
    assert np.array_equal(np.array(answer.json["outputs"][0]["data"], np.float32), array.ravel())


@pytest.mark.parametrize("path", ["/v2/models/identity/generate", "/v2/models/identity/generate_stream"])
async def test_large_generate_requests(wire: Wire, server: HandServer, path: str) -> None:
    values = LARGE.ravel()[:16_000].tolist()
    answer = await wire.ask(post(path, json.dumps({"INPUT0": values, "note": "n"}).encode()))
    assert json.loads(answer.body.removeprefix(b"data: "))["OUTPUT0"] == pytest.approx(values)
    assert server.requests[0].parameters == {"note": "n"}


async def test_errors_come_back_from_the_process(wire: Wire) -> None:
    body = json.dumps({"inputs": [tensor(shape=[1, 8000], data=["x"] * 8000)]}).encode()
    answer = await wire.ask(post(PATH, body))
    assert (answer.status, "takes numbers, but holds a string" in answer.error) == (400, True)


@pytest.mark.parametrize(
    ("request_bytes", "message"),
    [
        (
            post(PATH, gzip.compress(b" " * (16 << 20), 9), GZIP),
            "more than 200 times as many",
        ),
        (post(PATH, b'{"inputs":[' + b"{}," * 5000 + b"{}]}"), "has 5001 inputs; at most 4096"),
        (infer(outputs=[{"name": str(index)} for index in range(5000)]), "has 5000 outputs; at most 4096"),
        (infer(parameters=MANY), "has 5000 parameters; at most 4096"),
        (infer(inputs=[tensor(parameters=MANY)]), "has 5000 parameters of input 'INPUT0'; at most 4096"),
        (infer(outputs=[{"name": "OUTPUT0", "parameters": MANY}]), "has 5000 parameters of output 'OUTPUT0'; at most"),
        (
            post("/v2/models/identity/generate", json.dumps({"INPUT0": [1.0], "parameters": MANY}).encode()),
            "has 5001 inputs and parameters; at most 4096",
        ),
        (
            post(
                "/v2/repository/models/m/load", json.dumps({"parameters": {f"file:1/{n}": "" for n in MANY}}).encode()
            ),
            "has 5000 parameters; at most 4096",
        ),
        (
            post("/v2/repository/models/m/load", json.dumps({"parameters": {"config": "{" * 5_000_000}}).encode()),
            "the config has 5000000 characters; 262144 are the limit",
        ),
        (post("/v2/repository/index", b" " * 70_000 + b"{}"), "65536 are the limit"),
    ],
)
async def test_bombs_are_refused(wire: Wire, request_bytes: bytes, message: str) -> None:
    answer = await wire.ask(request_bytes)
    assert (answer.status, message in answer.error) == (413, True)


async def test_more_elements_of_bytes_than_the_limit(wire: Wire) -> None:
    data = bytes(4 * (2**20 + 1))
    item = tensor(datatype="BYTES", shape=[2**20 + 1], data=None, parameters={"binary_data_size": len(data)})
    text = json.dumps({"inputs": [item]}).encode()
    answer = await wire.ask(post(PATH, text + data, {"Inference-Header-Content-Length": str(len(text))}))
    assert (answer.status, "has 1048577 elements of BYTES" in answer.error) == (413, True)


JUNK = b"0" * 40_000
BINARY = json.dumps({"inputs": [tensor(shape=[1, 9], data=None, parameters={"binary_data_size": 36})]}).encode()
CHAT = json.dumps({"model": "identity", "messages": [{"role": "user", "content": "a" * 40_000}]}).encode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(PATH, JUNK),
        post(PATH, JUNK * 250),
        post(PATH, gzip.compress(LARGE.tobytes(), 1)[:-9], GZIP),
        post(PATH, BINARY + JUNK, {"Inference-Header-Content-Length": str(len(BINARY))}),
        post(PATH, BINARY + JUNK, {"Inference-Header-Content-Length": "20"}),
        post(PATH, JUNK, {"Inference-Header-Content-Length": "0"}),
        infer(inputs=[tensor(data=[1.0] * 10_000)]),
        infer("failing"),
        infer("unknown"),
        post("/v2/models/identity/generate", JUNK),
        post("/v2/models/identity/generate_stream", JUNK),
        post("/v2/repository/models/m/load", JUNK),
        post("/v1/chat/completions", JUNK),
        post("/v1/chat/completions", JUNK * 250),
        post("/v1/chat/completions", CHAT.replace(b"role", b"roll")),
        post("/v1/chat/completions", gzip.compress(CHAT)[:-9], GZIP),
        post("/v1/embeddings", JUNK),
        post("/v1/sequences/import", JUNK),
    ],
)
async def test_a_refused_body_is_freed_without_the_garbage_collector(wire: Wire, request_bytes: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        answer = await wire.ask(request_bytes)
        assert answer.status in (400, 404, 413)
        # The next answer comes when the first request's tasks have ended.
        assert (await wire.ask(infer())).status == 200
        # What an error's traceback refers to stays as long as the error.
        left = [each for each in gc.get_objects() if isinstance(each, TriuneError) and each.__traceback__ is not None]
        assert left == []
    finally:
        gc.enable()


async def test_what_waits_holds_memory_and_what_is_too_much_is_refused(
    connect: Callable[[], Awaitable[Wire]], server: HandServer, budget: MemoryBudget
) -> None:
    large, other = await connect(), await connect()
    await large.send(binary_infer(bytes(40 << 20), model="slow"))
    await server.until_waiting(1)
    assert budget.reserved_bytes >= 40 << 20
    refused = await other.ask(binary_infer(bytes(40 << 20)))
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "--max-inflight-bytes" in refused.error
    small = await connect()
    assert (await small.ask(infer())).status == 200
    server.release(0)
    assert (await large.answer()).status == 200
    assert budget.reserved_bytes == 0


async def test_more_than_the_whole_budget_is_too_large(wire: Wire) -> None:
    answer = await wire.ask(head("POST", PATH, {"Host": "x", "Content-Length": str(80 << 20)}), bytes(80 << 20))
    assert (answer.status, "--max-inflight-bytes" in answer.error) == (413, True)


@pytest.mark.parametrize("stage", ["body", "chunks", "parsing", "waiting", "reading"])
async def test_a_client_that_leaves_gives_its_memory_back(
    connect: Callable[[], Awaitable[Wire]], server: HandServer, budget: MemoryBudget, stage: str
) -> None:
    wire = await connect()
    numbers = json.dumps({"inputs": [tensor(shape=[1, 400_000], data=[0.5] * 400_000)]}).encode()
    requests = {
        "body": binary_infer(bytes(8 << 20))[: 4 << 20],
        "chunks": head("POST", PATH, {"Host": "x", "Transfer-Encoding": "chunked"}) + b"20000\r\n" + bytes(100_000),
        "parsing": post(PATH, numbers),
        "waiting": binary_infer(bytes(8 << 20), model="slow"),
        "reading": binary_infer(bytes(24 << 20)),
    }
    if stage == "reading":
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wire.send(requests[stage])
    if stage == "waiting":
        await server.until_waiting(1)
    async with asyncio.timeout(60):
        while budget.reserved_bytes < 65536:
            await asyncio.sleep(0.001)
    await wire.close()
    async with asyncio.timeout(60):
        while budget.reserved_bytes:
            await asyncio.sleep(0.01)


def json_answer(array: np.ndarray) -> bytes:
    """A request in binary data whose answer is to be JSON."""
    item = tensor(shape=list(array.shape), data=None, parameters={"binary_data_size": array.nbytes})
    text = json.dumps({"inputs": [item]}).encode()
    return post(PATH, text + array.tobytes(), {"Inference-Header-Content-Length": str(len(text))})


def generated(array: np.ndarray) -> bytes:
    return post("/v2/models/identity/generate", json.dumps({"INPUT0": array.ravel().tolist()}).encode())


@pytest.mark.parametrize(("make", "size"), [(json_answer, 1 << 20), (generated, 1 << 18)])
async def test_encoding_ends_when_the_client_leaves(
    wire: Wire,
    server: HandServer,
    budget: MemoryBudget,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[np.ndarray], bytes],
    size: int,
) -> None:
    num_encoded = 0
    is_begun, may_go_on = threading.Event(), threading.Event()
    encode = large_requests.encode_json

    def counted(name: str, array: np.ndarray) -> bytes:
        nonlocal num_encoded
        num_encoded += array.size
        is_begun.set()
        may_go_on.wait()
        return encode(name, array)

    monkeypatch.setattr(large_requests, "encode_json", counted)
    await wire.send(make(LARGE[:, :size]))
    await asyncio.to_thread(is_begun.wait)
    answer = weakref.ref(server.requests.pop().inputs["INPUT0"])
    await wire.close()
    await asyncio.sleep(0.1)  # until the server has seen that
    may_go_on.set()
    async with asyncio.timeout(60):
        while budget.reserved_bytes or answer() is not None:
            await asyncio.sleep(0.01)
    assert num_encoded < size


async def test_text_that_outgrows_the_budget_is_refused(wire: Wire, budget: MemoryBudget) -> None:
    request = json_answer(np.repeat(LARGE, 6))
    assert len(request) < LIMIT // 2
    answer = await wire.ask(request)
    assert (answer.status, "--max-inflight-bytes" in answer.error) == (413, True)
    assert budget.reserved_bytes == 0
    assert (await wire.ask(infer())).status == 200


async def test_a_client_that_reads_nothing_is_closed_and_gives_its_memory_back(
    wire: Wire, budget: MemoryBudget
) -> None:
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wire.send(binary_infer(bytes(24 << 20)))
    async with asyncio.timeout(60):
        while budget.reserved_bytes < 24 << 20:
            await asyncio.sleep(0.01)
        while budget.reserved_bytes:
            await asyncio.sleep(0.01)


async def test_an_answer_that_compresses_is_streamed(connect: Callable[[], Awaitable[Wire]]) -> None:
    wire, other = await connect(), await connect()
    data = np.repeat(LARGE.ravel()[: 1 << 14], 64).tobytes()
    request = binary_infer(data).replace(b"Host: x", b"Host: x\r\nAccept-Encoding: gzip, deflate")
    answer, count = await others_meanwhile(other, wire.ask(request))
    assert count > 1
    assert (answer.headers["content-encoding"], answer.headers["transfer-encoding"]) == ("gzip", "chunked")
    assert gzip.decompress(answer.body)[int(answer.headers["inference-header-content-length"]) :] == data
    old = await wire.ask(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert "transfer-encoding" not in old.headers
    assert gzip.decompress(old.body).endswith(data)


async def test_an_answer_of_noise_is_sent_as_it_is(wire: Wire) -> None:
    request = binary_infer(LARGE.tobytes()).replace(b"Host: x", b"Host: x\r\nAccept-Encoding: gzip, deflate")
    answer = await wire.ask(request)
    assert "content-encoding" not in answer.headers
    assert answer.body.endswith(LARGE.tobytes())


async def test_one_connection_too_many_is_told_so(connect: Callable[[], Awaitable[Wire]]) -> None:
    wires = [await connect() for _ in range(3)]
    for wire in wires:
        assert (await wire.ask(infer())).status == 200
    extra = await connect()
    answer = await extra.answer()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "--max-connections" in answer.error
    assert await extra.is_closed()


@pytest.mark.parametrize("num_columns", [16, 1 << 20])
async def test_who_leaves_before_a_task_has_answered_holds_no_memory(
    wire: Wire, server: HandServer, budget: MemoryBudget, monkeypatch: pytest.MonkeyPatch, num_columns: int
) -> None:
    """Models with a response cache, and those that are loaded for the request, answer by a task of their own."""

    async def answer(future: asyncio.Future[InferenceResponse]) -> InferenceResponse:
        return await future

    answer_at_once = server.infer
    monkeypatch.setattr(server, "infer", lambda request: asyncio.create_task(answer(answer_at_once(request))))
    await wire.send(binary_infer(bytes(4 * num_columns), model="slow"))
    await server.until_waiting(1)
    assert budget.reserved_bytes
    await wire.close()
    async with asyncio.timeout(60):
        while budget.reserved_bytes:
            await asyncio.sleep(0.01)
