"""Every way in which an HTTP request can be wrong, on a real socket. Each is followed by a good request that works."""

import asyncio
import gzip
import json
import resource
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from support.hand_server import HandServer
from support.http_thread import serve_in_thread
from support.wire import VECTOR, Wire, binary_infer, get, head, infer, post, tensor
from triune.core import errors
from triune.frontends.kserve.http.server import HttpServer
from triune.frontends.limits import Limits

PATH = "/v2/models/identity/infer"
NINES = "9" * 4301
LIMITS = Limits(
    request_bytes=2 << 20,
    head_bytes=32 << 10,
    chunks=1000,
    receive_seconds=1.0,
    idle_seconds=1.5,
    send_seconds=1.0,
    linger_seconds=0.2,
)


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
async def port(server: HandServer, limits: Limits) -> AsyncIterator[int]:
    front_end = HttpServer(server, "127.0.0.1", 0, limits=limits)  # type: ignore[arg-type]
    yield await front_end.start()
    await front_end.stop(0)


@pytest.fixture
async def wire(port: int) -> AsyncIterator[Wire]:
    """A connection; a good request is served on a new one afterwards, whatever happened on this."""
    wire = await Wire.open(port)
    yield wire
    await wire.close()
    after = await Wire.open(port)
    assert (await after.ask(infer())).status == 200
    await after.close()


@pytest.fixture(scope="module")
def shared_port() -> Iterator[int]:
    with serve_in_thread(HandServer(), LIMITS) as port:
        yield port


@pytest.fixture
async def shared_wire(shared_port: int) -> AsyncIterator[Wire]:
    wire = await Wire.open(shared_port)
    yield wire
    await wire.close()
    after = await Wire.open(shared_port)
    assert (await after.ask(infer())).status == 200
    await after.close()


def body_of(**fields: Any) -> bytes:
    return json.dumps({"inputs": [tensor(**fields)]}).encode()


def text_infer(text: bytes) -> bytes:
    return post(PATH, text)


def typed(datatype: str, *values: str) -> bytes:
    """An inference whose data are written as given, JSON or not."""
    text = f'{{"name":"INPUT0","datatype":"{datatype}","shape":[{len(values)}],"data":[{",".join(values)}]}}'
    return text_infer(f'{{"inputs":[{text}]}}'.encode())


CASES = [
    # The document.
    (text_infer(b""), "not valid JSON"),
    (text_infer(b"{"), "not valid JSON"),
    (text_infer(b"[]"), "the request must be an object, not an array"),
    (text_infer(b"null"), "must be an object, not null"),
    (text_infer(b"[" * 100_000), "nested too deep"),
    (text_infer(b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}"), "each of 'inputs' must be an object, not an array"),
    (text_infer(b'{"inputs": "\xff\xfe"}'), "not valid JSON"),
    (text_infer(b'{"id": "\\ud800", "inputs": []}'), "not valid JSON"),
    (text_infer(b"{}"), "no 'inputs'"),
    (text_infer(b'{"inputs": {}}'), "'inputs' must be an array, not an object"),
    (text_infer(b'{"inputs": null}'), "'inputs' must be an array, not null"),
    (infer(id=7), "'id' must be a string, not an integer"),
    (infer(parameters=[]), "'parameters' must be an object"),
    (
        infer(parameters={"x": None}),
        "parameter 'x' has invalid type. It must be a string, a number, true or false, not null",
    ),
    (infer(parameters={"x": {"y": 1}}), "parameter 'x' has invalid type"),
    (infer(parameters={"priority": -1}), "parameter 'priority' is -1"),
    (infer(parameters={"priority": "1"}), "'priority' must be an integer, not a string"),
    (infer(parameters={"timeout": 1.5}), "'timeout' must be an integer"),
    (infer(parameters={"timeout": 2**64}), "'timeout' must be an integer"),
    (infer(parameters={"timeout": True}), "'timeout' must be an integer, not true or false"),
    (infer(parameters={"sequence_id": -1}), "'sequence_id' must be a string or an integer"),
    (infer(parameters={"sequence_start": 1}), "'sequence_start' must be true or false"),
    (infer(parameters={"triton_x": 1}), "reserved"),
    (infer(parameters={"binary_data_output": "yes"}), "'binary_data_output' must be true or false"),
    (infer(outputs={}), "'outputs' must be an array"),
    (infer(outputs=[{"parameters": {}}]), "the 'name' of an output must be a string, not null"),
    (infer(outputs=[{"name": "O", "parameters": {"classification": -1}}]), "'classification' of output 'O' is -1"),
    (infer(outputs=[{"name": "O", "parameters": {"classification": "3"}}]), "must be an integer, not a string"),
    (infer(outputs=[{"name": "O", "parameters": {"binary_data": 1}}]), "'binary_data' of output 'O' must be true"),
    (infer(outputs=[{"name": "O"}, {"name": "O"}]), "output 'O' already exists in request"),
    # An input.
    (infer(inputs=[tensor(), tensor()]), "input 'INPUT0' already exists in request"),
    (infer(inputs=[3]), "each of 'inputs' must be an object, not an integer"),
    (text_infer(body_of(name=None)), "the 'name' of an input must be a string"),
    (text_infer(body_of(name=5)), "the 'name' of an input must be a string, not an integer"),
    (text_infer(body_of(datatype=None)), "the 'datatype' of input 'INPUT0' is null; expected one of BOOL"),
    (text_infer(body_of(datatype="FLOAT")), "is 'FLOAT'"),
    (text_infer(body_of(datatype=["FP32"])), "is an array"),
    (text_infer(body_of(shape=None)), "'shape' of input 'INPUT0' must be an array of integers"),
    (text_infer(body_of(shape=16)), "'shape' of input 'INPUT0' must be an array"),
    (text_infer(body_of(shape=[1, 16.0])), "'shape' of input 'INPUT0' must be an array"),
    (text_infer(body_of(shape=[True, 16])), "'shape' of input 'INPUT0' must be an array"),
    (text_infer(body_of(shape=[-1, -16])), "must be 0 or more, not -1"),
    (text_infer(body_of(shape=[2**62, 4])), "causes total element count to exceed maximum size of"),
    (text_infer(body_of(shape=[2**31])), "has 2147483648 elements, but 'data' holds 16"),
    (text_infer(body_of(shape=[1] * 200 + [16])), "has 201 dimensions"),
    (text_infer(body_of(shape=[1, 15])), "has 15 elements, but 'data' holds 16"),
    (text_infer(body_of(data=None)), "neither 'data' nor"),
    (text_infer(body_of(data="0")), "'data' of tensor 'INPUT0' must be an array, not a string"),
    (text_infer(body_of(data=[])), "'data' holds 0"),
    (text_infer(body_of(shape=[2, 8], data=[[0.0] * 4] * 4)), "nested as [4,4], but its shape is [2,8]"),
    (text_infer(body_of(shape=[2, 8], data=[[0.0] * 9, [0.0] * 7])), "ragged at depth 1"),
    (text_infer(body_of(data=[[0.0] * 15, 0.0])), "ragged at depth 1"),
    (text_infer(body_of(shape=[1, 2], data=[0.0, [0.0]])), "holds an array"),
    (text_infer(body_of(parameters=[])), "'parameters' of input 'INPUT0' must be an object"),
    (text_infer(body_of(parameters={"binary_data_size": 64})), "has both 'data' and 'binary_data_size'"),
    # Elements.
    (typed("FP32", "nan"), "not valid JSON"),
    (typed("FP32", "NaNs"), "not valid JSON"),
    (typed("FP32", "NaN", "1e39"), "holds a number beyond 3.4028235e+38"),
    (typed("INT32", "NaN"), "takes integers of at most 64 bits, but holds a number with a fraction"),
    (typed("BYTES", "NaN"), "takes strings, but holds a number"),
    (typed("FP64", "1e999"), "not valid JSON"),
    (typed("FP32", "0.5", "1e39"), "holds a number beyond 3.4028235e+38"),
    (typed("FP32", "-3.5e38"), "holds a number beyond"),
    (typed("FP32", "true"), "takes numbers, but holds true or false"),
    (typed("FP32", '"1"'), "takes numbers, but holds a string"),
    (typed("FP64", "null"), "takes numbers, but holds null"),
    (typed("INT32", "1", "1.0"), "takes integers of at most 64 bits, but holds a number with a fraction"),
    (typed("INT32", "true"), "but holds true or false"),
    (typed("UINT64", "18446744073709551616"), "more than 64 bits"),
    (typed("BOOL", "1"), "takes true and false, but holds an integer"),
    (typed("BYTES", "1"), "takes strings, but holds an integer"),
    (typed("FP16", "1.0"), "FP16 has no JSON form"),
    (typed("BF16", "1.0"), "BF16 has no JSON form"),
    *[
        (typed(datatype, str(value)), f"{datatype} holds a number outside")
        for datatype, value in [
            *((f"INT{bits}", 1 << (bits - 1)) for bits in (8, 16, 32, 64)),
            *((f"INT{bits}", (-1 << (bits - 1)) - 1) for bits in (8, 16, 32)),
            *((f"UINT{bits}", 1 << bits) for bits in (8, 16, 32)),
            *((f"UINT{bits}", -1) for bits in (8, 16, 32, 64)),
        ]
    ],
    # Binary data.
    (binary_infer(VECTOR.tobytes(), shape=[1, 15]), "Expected 60, got 64: FP32[1,15]"),
    (binary_infer(VECTOR.tobytes(), shape=[1, 17]), "Expected 68, got 64: FP32[1,17]"),
    (binary_infer(VECTOR.tobytes(), shape=[2**31, 2**20]), "Expected 9007199254740992, got 64"),
    (text_infer(body_of(data=None, parameters={"binary_data_size": 64})), "0 bytes of the body are left for it"),
    (text_infer(body_of(data=None, parameters={"binary_data_size": -4})), "is -4"),
    (text_infer(body_of(data=None, parameters={"binary_data_size": "64"})), "must be an integer, not a string"),
    (text_infer(body_of(data=None, parameters={"binary_data_size": 2**64})), "must be an integer"),
    *[
        (post(PATH, body_of(), {"Inference-Header-Content-Length": value}), message)
        for value, message in [
            ("1000000", "Inference-Header-Content-Length is 1000000, but the body has only"),
            ("99999999999999999999", "must be a number of bytes"),
            ("-1", "must be a number of bytes"),
            ("0x10", "must be a number of bytes"),
            ("", "must be a number of bytes"),
            ("5", "not valid JSON"),
            ("0", "Expected 64, got"),
        ]
    ],
    (post(PATH, body_of() + b"tail", {"Inference-Header-Content-Length": str(len(body_of()))}), "4 bytes of the body"),
    # Content encodings.
    (post(PATH, body_of(), {"Content-Encoding": "gzip"}), "not valid gzip"),
    (post(PATH, gzip.compress(body_of())[:-9], {"Content-Encoding": "gzip"}), "ends early"),
    (post(PATH, zlib.compress(body_of()) + b"x", {"Content-Encoding": "deflate"}), "1 bytes follow the end"),
    (post(PATH, b"", {"Content-Encoding": "gzip"}), "ends early"),
]


@pytest.mark.parametrize("body", [b"{", b"", body_of(data=None), bytes(100_000), body_of(data=[0.0] * 50_000)])
@pytest.mark.parametrize("name", ["nothing", "identity/versions/7"])
async def test_an_unknown_model_is_told_before_what_is_wrong_with_the_request(
    shared_wire: Wire, name: str, body: bytes
) -> None:
    answer = await shared_wire.ask(post(f"/v2/models/{name}/infer", body))
    assert answer.status == 404


@pytest.mark.parametrize(
    ("request_bytes", "message"), CASES, ids=[f"{i}-{case[1][:40]}" for i, case in enumerate(CASES)]
)
async def test_a_bad_request_is_told_why_and_the_connection_goes_on(
    shared_wire: Wire, request_bytes: bytes, message: str
) -> None:
    answer = await shared_wire.ask(request_bytes)
    assert answer.status == 400
    assert message in answer.error
    assert len(answer.error) < 500
    assert (await shared_wire.ask(infer())).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (infer("unknown"), 404, "unknown model 'unknown'"),
        (post("/v2/models/identity/versions/7/infer", body_of()), 404, "no version 7"),
        (post("/v2/models/identity/versions/x/infer", body_of()), 404, "has no version 'x'"),
        (post(f"/v2/models/identity/versions/{NINES}/infer", body_of()), 404, "... (4301 characters)"),
        (post(f"/v2/models/identity/versions/{NINES}/generate", b"{}"), 404, "... (4301 characters)"),
        (get(f"/v2/models/identity/versions/{NINES}/ready"), 404, "... (4301 characters)"),
        (get(f"/v2/models/identity/versions/{NINES}/stats"), 404, "... (4301 characters)"),
        (get(f"/v2/models/identity/versions/{2**63}"), 404, f"has no version '{2**63}'"),
        (get(PATH), 405, "Method Not Allowed"),
        (post("/v2/models/identity/inferno", b""), 404, "Not Found"),
        (post("/v2/models//infer", body_of()), 404, "Not Found"),
        (post(PATH, body_of(), {"Content-Encoding": "br"}), 501, "content encoding 'br' is not supported"),
        (text_infer(body_of(data=None, parameters={"shared_memory_region": "r"})), 501, "shared memory"),
        (infer(outputs=[{"name": "O", "parameters": {"shared_memory_region": "r"}}]), 501, "shared memory"),
        (infer("failing"), 400, "input 'INPUT0' holds poison"),
        (infer("defective"), 500, "KeyError"),
    ],
)
async def test_each_error_has_its_status(shared_wire: Wire, request_bytes: bytes, status: int, message: str) -> None:
    answer = await shared_wire.ask(request_bytes)
    assert answer.status == status
    assert message in answer.error
    assert answer.headers["content-type"] == "application/json"
    assert (await shared_wire.ask(infer())).status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidArgumentError("e"), 400),
        (errors.NotFoundError("e"), 404),
        (errors.AlreadyExistsError("e"), 400),
        (errors.UnavailableError("e"), 503),
        (errors.UnsupportedError("e"), 501),
        (errors.CancelledError("e"), 400),
        (errors.InternalError("e \ud800 \n"), 500),
    ],
)
async def test_a_models_errors_have_tritons_statuses(
    wire: Wire, server: HandServer, error: errors.TriuneError, status: int
) -> None:
    server.error = error
    answer = await wire.ask(infer("failing"))
    assert answer.status == status
    assert answer.error.startswith("e")


async def test_outputs_that_json_cannot_hold(wire: Wire) -> None:
    def ask(datatype: str, shape: list[int], data: bytes) -> bytes:
        item = tensor(datatype=datatype, data=None, shape=shape, parameters={"binary_data_size": len(data)})
        text = json.dumps({"inputs": [item]}).encode()
        return post(PATH, text + data, {"Inference-Header-Content-Length": str(len(text))})

    for datatype in ("FP16", "BF16"):
        answer = await wire.ask(ask(datatype, [1], b"\0\0"))
        assert (answer.status, "binary_data" in answer.error) == (400, True)
    answer = await wire.ask(ask("BYTES", [1], b"\1\0\0\0\xff"))
    assert (answer.status, "not UTF-8" in answer.error) == (400, True)
    answer = await wire.ask(ask("FP32", [3], struct.pack("<3f", float("nan"), float("inf"), 0.5)))
    assert b'"data":[NaN,Infinity,0.5]' in answer.body


@pytest.mark.parametrize("claim", [LIMITS.request_bytes + 1, 2 << 30, 1 << 62])
async def test_a_claim_beyond_the_limit_is_refused_at_once(wire: Wire, claim: int) -> None:
    answer = await wire.ask(head("POST", PATH, {"Host": "x", "Content-Length": str(claim)}))
    assert answer.status == 413
    assert f"exceeds the maximum allowed value of {LIMITS.request_bytes} bytes" in answer.error
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/models/identity/generate"])
async def test_no_path_asks_for_a_body_beyond_the_limit(wire: Wire, path: str) -> None:
    size = str(LIMITS.request_bytes + 1)
    answer = await wire.ask(head("POST", path, {"Host": "x", "Content-Length": size, "Expect": "100-continue"}))
    assert answer.status == 413
    assert size.encode() in answer.body


@pytest.mark.parametrize("limits", [replace(LIMITS, linger_seconds=60)])
async def test_a_client_that_sends_too_much_can_still_read_why(wire: Wire) -> None:
    # More than the buffers of both sockets hold.
    size = 64 << 20
    sending = asyncio.create_task(
        wire.send(head("POST", PATH, {"Host": "x", "Content-Length": str(size)}), bytes(size))
    )
    assert (await wire.answer()).status == 413
    await sending
    wire.writer.write_eof()
    assert await wire.is_closed()


@pytest.mark.parametrize("limits", [replace(LIMITS, linger_seconds=60)])
async def test_a_refused_request_that_has_arrived_leaves_no_connection_open(wire: Wire) -> None:
    # HTTP/1.1 asks for the header Host.
    await wire.send(head("POST", PATH, {"Content-Length": "2"}), b"{}")
    assert (await wire.answer()).status == 400
    assert await wire.is_closed()


@pytest.mark.parametrize("path", [PATH, "/v2/repository/index", "/v2/models/identity/generate"])
async def test_chunks_without_end_are_refused(shared_wire: Wire, path: str) -> None:
    await shared_wire.send(head("POST", path, {"Host": "x", "Transfer-Encoding": "chunked"}))
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    for _ in range(LIMITS.request_bytes // 65536 + 1):
        await shared_wire.send(chunk)
    answer = await shared_wire.answer()
    assert answer.status == 413
    assert "exceeds the maximum allowed" in answer.error


@pytest.mark.parametrize("path", [PATH, "/v2/repository/index"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_bomb_is_refused_within_bounded_memory(shared_port: int, path: str, encoding: str) -> None:
    # Compressing takes longer than an idle connection stays open.
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](bytes(128 << 20), 1)
    assert len(bomb) < LIMITS.request_bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wire = await Wire.open(shared_port)
    answer = await wire.ask(post(path, bomb, {"Content-Encoding": encoding}))
    assert answer.status == 413
    assert "Decompressed data size exceeds the maximum allowed value of" in answer.error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
    assert (await wire.ask(infer())).status == 200
    await wire.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_400_and_the_connection_ends(shared_wire: Wire, garbage: bytes) -> None:
    answer = await shared_wire.ask(garbage)
    assert answer.status == 400
    assert "not valid HTTP" in answer.error
    assert await shared_wire.is_closed()


@pytest.mark.parametrize(
    ("path", "headers", "version", "status", "message"),
    [
        ("/v2/health/live", {}, "1.1", 400, "it has 0 Host headers"),
        (PATH, {"Content-Length": "0"}, "1.1", 400, "it has 0 Host headers"),
        (PATH, {"Host": "x", "host": "y"}, "1.1", 400, "it has 2 Host headers"),
        (PATH, {"Host": "x", "Transfer-Encoding": "gzip, chunked"}, "1.1", 501, "transfer coding 'gzip, chunked'"),
        ("/v2/repository/index", {"Host": "x", "Transfer-Encoding": "br, chunked"}, "1.1", 501, "transfer coding"),
    ],
)
async def test_what_http_forbids_in_a_head_is_refused(
    shared_wire: Wire, path: str, headers: dict[str, str], version: str, status: int, message: str
) -> None:
    answer = await shared_wire.ask(head("POST", path, headers, version=version))
    assert (answer.status, message in answer.error) == (status, True)
    assert await shared_wire.is_closed()


async def test_http_1_0_needs_no_host(shared_wire: Wire) -> None:
    assert (await shared_wire.ask(head("GET", "/v2/health/live", {}, version="1.0"))).status == 200


@pytest.mark.parametrize("path", [PATH, "/v2/repository/index"])
async def test_tiny_chunks_without_end_are_refused(shared_wire: Wire, path: str) -> None:
    start = head("POST", path, {"Host": "x", "Transfer-Encoding": "chunked"})
    answer = await shared_wire.ask(start, b"1\r\n \r\n" * (LIMITS.chunks + 2))
    assert answer.status == 413
    assert "exceeds maximum of 1000 non-empty chunks" in answer.error


async def test_garbage_behind_a_good_request_does_not_cost_its_answer(wire: Wire, server: HandServer) -> None:
    await wire.send(infer("slow", id="good"), b"\0\0\0\0")
    await server.until_waiting(1)
    await asyncio.sleep(0.05)
    server.release(0)
    assert (await wire.answer()).json["id"] == "good"
    assert (await wire.answer()).status == 400
    assert await wire.is_closed()


async def test_a_broken_app_request_behind_a_good_request_does_not_cost_its_answer(
    wire: Wire, server: HandServer
) -> None:
    broken = head("POST", "/v2/repository/index", {"Host": "x", "Transfer-Encoding": "chunked"}) + b"zz\r\n"
    await wire.send(infer("slow", id="good"), broken)
    await server.until_waiting(1)
    await asyncio.sleep(0.05)
    server.release(0)
    assert (await wire.answer()).json["id"] == "good"
    assert (await wire.answer()).status == 400
    assert await wire.is_closed()


@pytest.mark.parametrize("name", ["value", "name", "many", "url", "trailer"])
async def test_a_head_without_end_is_refused(shared_wire: Wire, name: str) -> None:
    start = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n"
    starts = {
        "value": start + b"X: ",
        "name": start,
        "many": start,
        "url": b"POST /",
        "trailer": start + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    }
    await shared_wire.send(starts[name])
    filler = b"a: b\r\n" * 1000 if name == "many" else b"a" * 6000
    for _ in range(200):
        if shared_wire.reader._buffer:  # type: ignore[attr-defined]
            break
        await shared_wire.send(filler)
        await asyncio.sleep(0.001)
    assert (await shared_wire.answer()).status == 431


@pytest.mark.parametrize("path", [b"/v2", b"/v2/models/identity/infer"])
async def test_a_large_head_that_comes_at_once_is_refused(shared_wire: Wire, path: bytes) -> None:
    headers = b"".join(b"X-%d: %s\r\n" % (index, b"y" * 200) for index in range(200))
    method = b"POST" if path.endswith(b"infer") else b"GET"
    await shared_wire.send(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + headers + b"\r\n")
    answer = await shared_wire.answer()
    assert (answer.status, b"32768 bytes" in answer.body) == (431, True)


@pytest.mark.parametrize("path", [b"/v2", b"/v2/models/identity/infer"])
async def test_a_request_with_very_many_headers_is_refused(shared_wire: Wire, path: bytes) -> None:
    headers = b"".join(b"a:\r\n" for _ in range(5000))
    method = b"POST" if path.endswith(b"infer") else b"GET"
    await shared_wire.send(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + headers + b"\r\n")
    answer = await shared_wire.answer()
    assert (answer.status, b"more than 256 headers" in answer.body) == (431, True)


async def test_many_requests_in_one_read_have_a_head_each(shared_wire: Wire) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    await shared_wire.send(request * 3000 + request[:30])
    for _ in range(3000):
        assert (await shared_wire.answer()).status == 200
    await shared_wire.send(request[30:])
    assert (await shared_wire.answer()).status == 200


async def test_a_head_that_drips_is_told_and_dropped(shared_wire: Wire) -> None:
    await shared_wire.send(b"POST /v2/mod")

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.2)
            await shared_wire.send(b" ")

    dripping = asyncio.create_task(drip())
    answer = await shared_wire.answer()
    dripping.cancel()
    assert answer.status == 408
    assert "head took more than 1 s" in answer.error
    assert await shared_wire.is_closed()


@pytest.mark.parametrize(
    "start",
    [
        head("POST", PATH, {"Host": "x", "Content-Length": "100"}) + b'{"inp',
        head("POST", "/v2/repository/index", {"Host": "x", "Content-Length": "100"}) + b'{"rea',
        head("POST", PATH, {"Host": "x", "Transfer-Encoding": "chunked"}) + b"40\r\n12",
    ],
)
async def test_a_body_that_falls_silent_is_told_and_dropped(shared_wire: Wire, start: bytes) -> None:
    await shared_wire.send(start)
    answer = await shared_wire.answer()
    assert answer.status == 408
    assert "nothing of the request came for 1 s" in answer.error
    assert await shared_wire.is_closed()


async def test_a_slow_steady_body_is_welcome(shared_wire: Wire) -> None:
    request = infer()
    for start in range(0, len(request), len(request) // 6):
        await shared_wire.send(request[start : start + len(request) // 6])
        await asyncio.sleep(0.2)
    assert (await shared_wire.answer()).status == 200


async def test_an_idle_connection_is_closed(wire: Wire, port: int) -> None:
    assert (await wire.ask(infer())).status == 200
    fresh = await Wire.open(port)
    assert await wire.is_closed(6)
    assert await fresh.is_closed(6)
    await fresh.close()


async def test_a_slow_answer_is_not_cut_off_by_the_limits_on_time(wire: Wire, server: HandServer) -> None:
    await wire.send(infer("slow", id="patient"), head("POST", PATH, {"Host": "x", "Content-Length": "100"}), b"{")
    await server.until_waiting(1)
    await asyncio.sleep(2.2)
    server.release(0)
    assert (await wire.answer()).json["id"] == "patient"
    assert (await wire.answer()).status == 408


async def test_a_client_that_never_reads_is_dropped(wire: Wire, server: HandServer) -> None:
    data = bytes((2 << 20) - 4096)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    sending = asyncio.create_task(wire.send(*[binary_infer(data)] * 20))
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(sending, 60)


@pytest.mark.parametrize("cut", [3, 60, 200, -1])
async def test_a_connection_dropped_half_way_costs_nothing(wire: Wire, server: HandServer, cut: int) -> None:
    await wire.send(infer()[:cut])
    await asyncio.sleep(0.05)
    await wire.close()
    assert server.requests == []


@pytest.mark.parametrize("path", ["/v2/models/%ff/infer", "/v2/models/a%ff/config", "/v1/models/%c3"])
async def test_a_name_that_is_not_utf8_is_refused(shared_wire: Wire, path: str) -> None:
    answer = await shared_wire.ask(post(path, b"{}"))
    assert answer.status == 400
    assert "is not UTF-8" in answer.error
