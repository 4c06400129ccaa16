"""A closed-loop HTTP load: N connections, each sending the next request when the last was answered.

One process, uvloop, requests encoded once: it costs about 15 us a request, so that two cores are left to the server
for anything but the smallest models.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httptools
import numpy as np
import uvloop


@dataclass
class Result:
    """What a load saw. Latencies in seconds, of requests that were answered with 200."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent)) * 1e3 if self.latencies else float("nan")


def encode(host: str, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()) -> bytes:
    """A KServe inference as the bytes of one HTTP request: binary inputs, binary outputs."""
    names = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": names[array.dtype.name],
                    "shape": array.shape,
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in inputs.items()
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    body = header + b"".join(array.tobytes() for array in inputs.values())
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Client(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], result: Result, until: float) -> None:
        self.requests, self.result, self.until = requests, result, until
        self.done = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.count = 0
        self.body = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        if self.sent >= self.until:
            self.transport.close()
            return
        self.transport.write(self.requests[self.count % len(self.requests)])
        self.count += 1

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if self.parser.get_status_code() != 200:
            self.body += body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status == 200:
            self.result.latencies.append(time.perf_counter() - self.sent)
        else:
            self.result.errors.append(f"{status} {self.body[:200]!r}")
            self.body = b""
        self.parser = httptools.HttpResponseParser(self)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or time.perf_counter() < self.until:
            self.result.errors.append(f"connection lost: {exc}")
        self.done.set_result(None)


async def load(host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Result:
    """Load a server for `seconds`; connection i starts at request i."""
    loop = asyncio.get_running_loop()
    result = Result()
    begin = time.perf_counter()
    clients = []
    for index in range(connections):
        order = [*requests[index % len(requests) :], *requests[: index % len(requests)]]
        _, client = await loop.create_connection(
            lambda order=order: _Client(order, result, begin + seconds), host, port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    result.seconds = time.perf_counter() - begin
    return result


def run(host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Result:
    """`load`, from synchronous code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load(host, port, requests, connections, seconds))
