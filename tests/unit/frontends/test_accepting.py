"""Bursts of connections are accepted a few at a time."""

import asyncio
import errno
import socket
from typing import Any, cast

import pytest
import uvloop

from triune.frontends import accepting
from triune.frontends.accepting import Acceptor
from triune.frontends.embedded import listen

NUM_CONNECTIONS = 200


class Echo(asyncio.Protocol):
    made = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Echo.made += 1
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


def burst(port: int) -> list[socket.socket]:
    """Connections of which each has sent something, before the loop has accepted any."""
    found: list[socket.socket] = []
    for _ in range(NUM_CONNECTIONS):
        found.append(socket.create_connection(("127.0.0.1", port)))
        found[-1].sendall(b"x")
    return found


async def few_in_a_turn() -> None:
    Echo.made = 0
    (listener,) = listen("127.0.0.1", 0, purpose="tests")
    acceptor = Acceptor(listener, Echo)
    clients = burst(listener.getsockname()[1])
    loop, made, turns = asyncio.get_running_loop(), 0, []
    while Echo.made < NUM_CONNECTIONS:
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
        turns.append(Echo.made - made)
        made = Echo.made
    assert max(turns) <= 2 * accepting._MOST_IN_A_TURN
    for client in clients:
        client.setblocking(False)
        assert await asyncio.wait_for(loop.sock_recv(client, 10), 20) == b"x"
        client.close()
    port = listener.getsockname()[1]
    acceptor.close()
    acceptor.close()
    await acceptor.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("library", [asyncio, uvloop])
def test_a_burst_is_accepted_a_few_in_a_turn(library: Any) -> None:
    with asyncio.Runner(loop_factory=library.new_event_loop) as runner:
        runner.run(few_in_a_turn())


class Exhausted:
    """A listening socket of a process that has no file descriptor left, once."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.num_refusals = 0

    def fileno(self) -> int:
        return self.listener.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if not self.num_refusals:
            self.num_refusals = 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.listener.accept()

    def close(self) -> None:
        self.listener.close()


async def test_it_goes_on_after_file_descriptors_were_used_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "_PAUSE_SECONDS", 0.01)
    (listener,) = listen("127.0.0.1", 0, purpose="tests")
    exhausted = Exhausted(listener)
    acceptor = Acceptor(cast("socket.socket", exhausted), Echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.read(), 20) == b"hello"
    assert exhausted.num_refusals == 1
    assert "cannot accept a connection: Too many open files; allow the process more" in caplog.text
    writer.close()
    acceptor.close()
