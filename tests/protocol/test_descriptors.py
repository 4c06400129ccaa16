"""Clients that take every connection take no model's load."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
import tritonclient.http

from support.process import TRIUNE, free_ports, serve
from support.repositories import affine, write_model

_BEGUN = (b"GET /v2 HT", b"PRI * HT", b"GET /met")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_idle_connections_during_the_start(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    # What is new is loaded in a process of its own, which takes descriptors and time.
    monkeypatch.setenv("TRIUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("a", "b", "c"):
        write_model(tmp_path, name, v1=affine())
    ports = free_ports(3)
    flags = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    clients: list[socket.socket] = []
    is_over = threading.Event()

    def connect() -> None:
        """As many as the server takes, and more."""
        while not is_over.is_set() and len(clients) < 900:
            for port, begun in zip(ports, _BEGUN, strict=True):
                for address in ("127.0.0.1", "::1") if host == "localhost" else ("127.0.0.1",):
                    with contextlib.suppress(OSError):
                        clients.append(socket.create_connection((address, port), timeout=1))
                        clients[-1].sendall(begun)
            if not clients:
                time.sleep(0.01)

    thread = threading.Thread(target=connect)
    thread.start()
    limited = ("bash", "-c", 'ulimit -n 512 && exec "$@"', "limited", TRIUNE, "serve")
    try:
        with serve(tmp_path, f"--host={host}", *flags, command=limited) as served:
            said = "".join(served.lines)
            assert "--max-connections is lowered from 4096 to" in said
            assert "HTTP     http://" in said
            is_over.set()
            thread.join()
            for client in clients:
                client.close()
            with tritonclient.http.InferenceServerClient(f"127.0.0.1:{ports[0]}") as client:
                assert all(client.is_model_ready(name) for name in ("a", "b", "c"))
    finally:
        is_over.set()
        thread.join()
        for client in clients:
            client.close()
