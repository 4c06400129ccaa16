"""Who waits while somebody else's request is large: a tiny model's client and health checks, under each load below.

Usage: liveness.py [--seconds 10] [--load NAME ...] [--floor]
--floor: the server is one that does nothing: it answers HTTP with a constant, and refuses gRPC calls without reading
    their messages. What the probes wait there is what asyncio and grpc.aio cost.

The loads run in a process of their own, as do the probes: 50 requests a second to a tiny model, and as many health
checks, each on one connection. What the probes see holds the machine's other work too: compare with "nothing".
Memory is the most that the server and its children held together, above what they held before.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx
import psutil
import requests
import uvloop

from load import encode
from servers import heading, triune
from triune.zoo.repository import build_repository

TINY = "identity_fp32"
FREE, STRINGS = "identity_any", "identity_strings"
INTERVAL_SECONDS = 0.02
PORT = 19200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--load", nargs="+", default=["nothing", *LOADS])
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--be-floor", metavar="PORT", type=int, help="be the server that does nothing")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "PORT", "SECONDS"), help="be the load")
    parser.add_argument("--probe", nargs=2, metavar=("PORT", "SECONDS"), help="be the probes; likewise")
    options = parser.parse_args()
    if options.be_floor:
        uvloop.run(do_nothing(options.be_floor))
    elif options.run:
        run_load(options.run[0], int(options.run[1]), float(options.run[2]))
    elif options.probe:
        asyncio.run(probe(int(options.probe[0]), float(options.probe[1])))
    else:
        report(options.load, options.seconds, is_floor=options.floor)


def report(loads: list[str], seconds: float, *, is_floor: bool) -> None:
    print(heading("Liveness of a server that does nothing" if is_floor else "Liveness"), flush=True)
    if is_floor:
        for name in loads:
            process = subprocess.Popen([sys.executable, __file__, "--be-floor", str(PORT)])
            try:
                wait_for(PORT + 1)
                memory = psutil.Process(process.pid).memory_info
                measure(PORT, lambda memory=memory: memory().rss, name, seconds)
            finally:
                process.terminate()
                process.wait()
        return
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        build_repository(repository, models=[TINY])
        save_identity(repository / FREE, onnx.TensorProto.FLOAT)
        save_identity(repository / STRINGS, onnx.TensorProto.STRING)
        for name in loads:
            with triune(repository, port=PORT) as server:
                measure(server.http_port, server.memory_bytes, name, seconds)


async def do_nothing(port: int) -> None:
    """Serve without doing anything: see the module's `--floor`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next((each for each in head.split(b"\r\n") if each.startswith(b"content-length")), b":0")
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def refuse(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        del message
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this server does nothing")
        return b""

    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(refuse)}
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)])
    server.add_insecure_port(f"127.0.0.1:{port + 1}")
    await server.start()
    async with await asyncio.start_server(answer, "127.0.0.1", port) as http:
        await http.serve_forever()


def wait_for(port: int) -> None:
    """Wait until something listens on a port of this machine."""
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port} after 30 s")


def save_identity(folder: Path, datatype: int) -> None:
    """An ONNX model that gives back what it gets, of any size."""
    x, y = (onnx.helper.make_tensor_value_info(name, datatype, ["b", "n"]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")


def measure(port: int, memory_bytes: Callable[[], int], name: str, seconds: float) -> None:
    """Print a line for one load."""
    before = memory_bytes()
    peak = before
    arguments = [sys.executable, __file__]
    probes = subprocess.Popen([*arguments, "--probe", str(port), str(seconds)], stdout=subprocess.PIPE, text=True)
    load = None
    if name != "nothing":
        load = subprocess.Popen([*arguments, "--run", name, str(port), str(seconds)], stdout=subprocess.PIPE, text=True)
    while probes.poll() is None:
        with contextlib.suppress(Exception):
            peak = max(peak, memory_bytes())
        time.sleep(0.02)
    assert probes.stdout is not None
    seen = json.loads(probes.stdout.read())
    did = "" if load is None else load.communicate()[0].strip()
    times = "  ".join(
        f"{kind}: p50 {np.percentile(each, 50):6.1f}  p99 {np.percentile(each, 99):7.1f}  max {max(each):7.1f} ms"
        for kind, each in seen.items()
    )
    print(f"{name:22} {times}  memory +{(peak - before) >> 20:5} MiB  {did}", flush=True)


async def probe(port: int, seconds: float) -> None:
    """Print how long each probe waited, in ms."""
    tiny = encode("x", TINY, {"INPUT0": np.ones(16, np.float32)}, ["OUTPUT0"])
    health = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    seen = await asyncio.gather(*(ask_steadily(port, each, seconds) for each in (tiny, health)))
    print(json.dumps(dict(zip(("tiny", "health"), seen, strict=True))))


async def ask_steadily(port: int, request: bytes, seconds: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        sent = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0")
        await reader.readexactly(int(length.split(b":")[1]))
        times.append((time.perf_counter() - sent) * 1e3)
        await asyncio.sleep(INTERVAL_SECONDS)
    return times


def run_load(name: str, port: int, seconds: float) -> None:
    """Send one kind of request again and again, each client after its last was answered; print what came back."""
    num_clients, make = LOADS[name]
    send = make(port)
    end = time.monotonic() + seconds
    answers: dict[str, int] = {}

    def client() -> None:
        session = requests.Session()
        while time.monotonic() < end:
            status = send(session)
            answers[status] = answers.get(status, 0) + 1

    clients = [threading.Thread(target=client) for _ in range(num_clients)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    print(f"{num_clients} x {answers}")


Send = Callable[[requests.Session], str]


def fetch(array: np.ndarray, accepted: str) -> Callable[[int], Send]:
    """4 MB there and back."""

    def make(port: int) -> Send:
        head, _, body = encode("x", FREE, {"x": array}, ["y"]).partition(b"\r\n\r\n")
        size = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Inference-Header"))
        headers = {"Inference-Header-Content-Length": size.decode(), "Accept-Encoding": accepted}
        return post(port, FREE, body, headers)

    return make


def json_of(body: Callable[[], bytes], *, model: str = FREE, encoding: str = "identity") -> Callable[[int], Send]:
    def make(port: int) -> Send:
        packed = gzip.compress(body(), 9) if encoding == "gzip" else body()
        return post(port, model, packed, {"Content-Encoding": encoding})

    return make


def post(port: int, model: str, body: bytes, headers: dict[str, str]) -> Send:
    def send(session: requests.Session) -> str:
        answer = session.post(
            f"http://127.0.0.1:{port}/v2/models/{model}/infer", data=body, headers=headers, stream=True
        )
        answer.raw.read(decode_content=False)
        return str(answer.status_code)

    return send


def strings(count: int) -> Callable[[int], Send]:
    """So many empty strings as binary data."""

    def make(port: int) -> Send:
        data = bytes(4 * count)
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1, count], "parameters": {"binary_data_size": len(data)}}
        text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        return post(port, STRINGS, text + data, {"Inference-Header-Content-Length": str(len(text))})

    return make


def empty_inputs(port: int) -> Send:
    """8 MiB of inputs without anything, over gRPC."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port + 1}")
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    data = b"\x2a\x00" * (4 << 20)

    def send(_: requests.Session) -> str:
        try:
            call(data)
        except grpc.RpcError as error:
            return error.code().name  # type: ignore[attr-defined]
        return "OK"

    return send


def numbers(count: int) -> bytes:
    values = np.random.default_rng(0).random(count).tolist()
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, count], "data": values}]}).encode()


NOISE = np.random.default_rng(0).random((1, 1 << 20), np.float32)
STEPS = np.repeat(NOISE[:, : 1 << 14], 64, axis=1)

LOADS: dict[str, tuple[int, Callable[[int], Send]]] = {
    "4 MB noise": (20, fetch(NOISE, "identity")),
    "4 MB noise, gzip": (20, fetch(NOISE, "gzip, deflate")),
    "4 MB steps, gzip": (20, fetch(STEPS, "gzip, deflate")),
    "64 KiB of gzip bomb": (4, json_of(lambda: b'{"inputs":[' + b"{}," * (22 << 20) + b"{}]}", encoding="gzip")),
    "64 MiB of {},": (2, json_of(lambda: b'{"inputs":[' + b"{}," * (22 << 20) + b"{}]}")),
    "24 MiB of {},": (2, json_of(lambda: b'{"inputs":[' + b"{}," * (7 << 20) + b"{}]}")),
    "20 MB of JSON numbers": (2, json_of(lambda: numbers(1 << 20))),
    "16 Mi empty strings": (2, strings(16 << 20)),
    "1 Mi empty strings": (2, strings(1 << 20)),
    "8 MiB of gRPC inputs": (2, empty_inputs),
}

if __name__ == "__main__":
    main()
