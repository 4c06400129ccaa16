"""The metrics port on a real socket."""

import asyncio
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from email.message import Message

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.hand_server import HandServer
from support.wire import Wire, get
from triune.core.errors import UnavailableError
from triune.core.units import Presence, Unit, UnitStatus
from triune.frontends.metrics import MetricsServer
from triune.frontends.short import ShortLimits


@pytest.fixture
def server() -> HandServer:
    return HandServer()


@pytest.fixture
async def address(server: HandServer) -> AsyncIterator[str]:
    units = (UnitStatus(Unit.CPU, Presence.PRESENT),)
    metrics = MetricsServer(server, port=0, units=units)  # type: ignore[arg-type]
    port = await metrics.start()
    yield f"127.0.0.1:{port}"
    await metrics.stop(5)


async def fetch(address: str, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[Message, str]:
    def get() -> tuple[Message, str]:
        request = urllib.request.Request(f"http://{address}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.headers, response.read().decode()

    return await asyncio.to_thread(get)


async def test_scrape(address: str, server: HandServer) -> None:
    server.models["identity"].statistics.num_executions = 41
    headers, text = await fetch(address)
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'nv_inference_exec_count{model="identity",version="2"} 41\n' in text
    assert 'triune_unit_present{presence="present",unit="cpu"} 1\n' in text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"nv_inference_request_success", "nv_inference_request_failure", "nv_cpu_memory_total_bytes"} <= names
    server.models["identity"].statistics.num_executions += 1
    _, later = await fetch(address)
    assert 'nv_inference_exec_count{model="identity",version="2"} 42\n' in later


async def test_an_upgrade_is_not_offered_and_not_logged(address: str, caplog: pytest.LogCaptureFixture) -> None:
    _, text = await fetch(address, Connection="Upgrade", Upgrade="websocket")
    assert "nv_inference_count{" in text
    assert not caplog.records


async def test_names_stay_tritons_whatever_the_scraper_accepts(address: str) -> None:
    _, text = await fetch(address, Accept="application/openmetrics-text; version=1.0.0")
    assert "nv_inference_count{" in text
    assert "nv_inference_count_total" not in text


async def test_model_that_was_unloaded_disappears(address: str, server: HandServer) -> None:
    del server.models["identity"]
    _, text = await fetch(address)
    assert 'model="identity"' not in text
    assert 'model="slow"' in text


async def test_other_paths_and_methods(address: str) -> None:
    for path, method, status in (("/", "GET", 404), ("/metrics", "POST", 405), ("/v2/health/live", "GET", 404)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            await fetch(address, path, method)
        assert caught.value.code == status


async def test_port_that_is_taken(address: str, server: HandServer) -> None:
    host, port = address.split(":")
    with pytest.raises(UnavailableError, match=f"cannot listen for metrics on {address}"):
        await MetricsServer(server, host, int(port)).start()  # type: ignore[arg-type]


async def test_start_and_stop(server: HandServer) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    metrics = MetricsServer(server, port=0)  # type: ignore[arg-type]
    port = await metrics.start()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await fetch(f"127.0.0.1:{port}")
    await asyncio.wait_for(metrics.stop(600), 60)
    with pytest.raises(urllib.error.URLError):
        await fetch(f"127.0.0.1:{port}")
    await metrics.stop(5)
    again = MetricsServer(server, port=port)  # type: ignore[arg-type]
    assert await again.start() == port
    await again.stop(5)


async def test_stop_does_not_wait_for_idle_connections(server: HandServer) -> None:
    metrics = MetricsServer(server, port=0)  # type: ignore[arg-type]
    port = await metrics.start()
    idle = socket.create_connection(("127.0.0.1", port))
    half = socket.create_connection(("127.0.0.1", port))
    half.sendall(b"GET /metr")
    await asyncio.sleep(0.05)
    await asyncio.wait_for(metrics.stop(0.5), 60)
    idle.close()
    half.close()


async def test_what_is_silent_too_long_or_large_is_closed(server: HandServer) -> None:
    limits = ShortLimits(request_bytes=2000, receive_seconds=0.4, idle_seconds=0.4, send_seconds=0.4, connections=3)
    metrics = MetricsServer(server, port=0, limits=limits)  # type: ignore[arg-type]
    port = await metrics.start()
    silent, half, greedy = [await Wire.open(port) for _ in range(3)]
    surplus = await Wire.open(port)
    assert (await surplus.answer()).status == 503
    await half.send(b"GET /metrics HTTP/1.1\r\nX: ")
    answer = await greedy.ask(b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 3000)
    assert (answer.status, b"more than 2000 bytes" in answer.body) == (431, True)
    for wire in (silent, half, greedy, surplus):
        assert await wire.is_closed()
    good = await Wire.open(port)
    for _ in range(3):
        assert (await good.ask(get("/metrics"))).status == 200
    good.writer.transport.pause_reading()  # type: ignore[attr-defined]
    # Answers that nobody reads: the connection is aborted, and the sender hears of it.
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_without_end(good), 60)
    await metrics.stop(1)


async def test_who_sends_too_much_hears_why(address: str) -> None:
    def send() -> bytes:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX: " + b"a" * (16 << 20) + b"\r\n\r\n")
            return connection.recv(1000)

    assert (await asyncio.to_thread(send)).startswith(b"HTTP/1.1 431 ")


async def test_few_requests_may_be_pipelined(address: str) -> None:
    port = int(address.split(":")[1])
    wire = await Wire.open(port)
    await wire.send(get("/metrics") * 16)
    assert [(await wire.answer()).status for _ in range(16)] == [200] * 16
    await wire.send(get("/metrics") * 200)
    answer = await wire.answer()
    assert (answer.status, b"more than 16 requests of the connection wait" in answer.body) == (400, True)
    assert await wire.is_closed()


async def send_without_end(wire: Wire) -> None:
    while True:
        await wire.send(get("/metrics") * 20)
