"""More requests than a model can answer: what clients get at once and at twice its capacity.

Usage: overload.py [--seconds 20] [--models NAME ...] [-- ARGUMENTS OF THE SERVER]

The capacity is what 64 clients get that each wait for their answers, before and after. Between them requests are sent
at a steady rate whatever comes back, from a process of their own, on as many connections as it takes. Goodput is 200s a
second within the time of the load. Memory is the server's with its children: before, the most, and in the end.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import uvloop

import load
from servers import Running, heading, triune
from triune.zoo.packages import PackageCache
from triune.zoo.repository import build_repository

_TICK_SECONDS = 0.002
_MAX_WAIT_SECONDS = 60.0
_RNG = np.random.default_rng(0)
_TOKENS = (1, 16)
MODELS = {
    "minilm": {
        "input_ids": _RNG.integers(1000, 20000, _TOKENS),
        "attention_mask": np.ones(_TOKENS, np.int64),
        "token_type_ids": np.zeros(_TOKENS, np.int64),
    },
    "magika": {"bytes": _RNG.integers(0, 257, (1, 2048)).astype(np.int32)},
    "efficientnet_lite0": {"image": _RNG.standard_normal((1, 3, 224, 224), np.float32)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--models", nargs="+", default=["minilm"], choices=list(MODELS))
    parser.add_argument("--run", nargs=4, metavar=("MODEL", "PORT", "RATE", "SECONDS"), help="be the load")
    parser.add_argument("arguments", nargs="*", help="of the server")
    options = parser.parse_args()
    if options.run:
        name, port, rate, seconds = options.run
        seen = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(
            send_steadily(int(port), load.encode("x", name, MODELS[name]), float(rate), float(seconds))
        )
        print(json.dumps(seen))
        return
    print(heading("Overload"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        build_repository(Path(folder), cache=PackageCache(), models=options.models)
        for name in options.models:
            with triune(Path(folder), *options.arguments, port=19400) as server:
                measure(server, name, options.seconds)


def measure(server: Running, name: str, seconds: float) -> None:
    """Print what came of once and twice the capacity, which is measured before and after each."""
    request = load.encode("x", name, MODELS[name])
    print(f"{name}, {len(request) / 1024:.1f} KiB a request", flush=True)
    load.run(server.host, server.http_port, [request], 64, seconds / 4)
    capacity = load.run(server.host, server.http_port, [request], 64, seconds / 2).rate
    for factor in (1, 2):
        rate, before = factor * capacity, server.memory_bytes()
        seen, peak = overload(server, name, rate, seconds)
        later = load.run(server.host, server.http_port, [request], 64, seconds / 2).rate
        mean = (capacity + later) / 2
        print(
            f"  x{factor}: capacity {capacity:.0f} and {later:.0f}/s; sent {seen['sent']} at {rate:.0f}/s: "
            f"{seen['statuses']}; goodput {seen['goodput']:.0f}/s ({100 * seen['goodput'] / mean:.0f}%); 200s after "
            f"{times(seen['200'])}; 503s after {times(seen['503'])}; memory {before >> 20}, at most {peak >> 20}, "
            f"after {server.memory_bytes() >> 20} MiB",
            flush=True,
        )
        capacity = later


def overload(server: Running, name: str, rate: float, seconds: float) -> tuple[dict[str, Any], int]:
    """Have a process send so many requests a second: what it saw, and the most memory that the server had meanwhile."""
    peak, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.05):
            peak = max(peak, server.memory_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    arguments = ["--run", name, str(server.http_port), str(rate), str(seconds)]
    text = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True).stdout
    is_over.set()
    watching.join()
    return json.loads(text), peak


def times(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"p50 {np.percentile(seconds, 50) * 1e3:.1f} p99 {np.percentile(seconds, 99) * 1e3:.1f} ms"


class _Client(asyncio.Protocol):
    """A connection that sends one request at a time, and says what came of it."""

    def __init__(self, sender: "_Sender") -> None:
        self._sender = sender
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def send(self, request: bytes) -> None:
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._sender.note(str(self._parser.get_status_code()), self._sent)
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0
        self._sender.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._sender.idle:
            self._sender.idle.remove(self)
        if self._sent:
            self._sender.note("lost", self._sent)

    def close(self) -> None:
        self._transport.close()


class _Sender:
    def __init__(self) -> None:
        self.idle: list[_Client] = []
        self.statuses: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {"200": [], "503": []}
        self.ends: list[float] = []
        self.has_all = asyncio.Event()
        self._num_awaited = -1

    def await_all(self, num_sent: int) -> None:
        """Set `has_all` once something came of so many requests."""
        self._num_awaited = num_sent
        self.check()

    def check(self) -> None:
        if self.statuses.total() == self._num_awaited:
            self.has_all.set()

    def note(self, status: str, sent: float) -> None:
        now = time.perf_counter()
        self.statuses[status] += 1
        if status in self.times:
            self.times[status].append(now - sent)
        if status == "200":
            self.ends.append(now)
        self.check()


async def send_steadily(port: int, request: bytes, rate: float, seconds: float) -> dict[str, object]:
    """Send `rate` requests a second whatever comes back, and wait for what is still to come."""
    loop = asyncio.get_running_loop()
    sender = _Sender()
    num_sent = 0
    begin = time.perf_counter()
    opening: set[asyncio.Task[None]] = set()

    async def on_another_connection() -> None:
        try:
            _, client = await loop.create_connection(lambda: _Client(sender), "127.0.0.1", port)
        except OSError:
            sender.note("no connection", 0)
            return
        client.send(request)

    while (now := time.perf_counter()) - begin < seconds:
        for _ in range(int((now - begin) * rate) - num_sent):
            num_sent += 1
            if sender.idle:
                sender.idle.pop().send(request)
                continue
            task = asyncio.create_task(on_another_connection())
            opening.add(task)
            task.add_done_callback(opening.discard)
        await asyncio.sleep(_TICK_SECONDS)
    end = time.perf_counter()
    sender.await_all(num_sent)
    await asyncio.wait_for(sender.has_all.wait(), _MAX_WAIT_SECONDS)
    for client in sender.idle:
        client.close()
    goodput = sum(each <= end for each in sender.ends) / (end - begin)
    return {"sent": num_sent, "statuses": dict(sender.statuses), "goodput": goodput, **sender.times}


if __name__ == "__main__":
    main()
