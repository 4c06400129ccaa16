"""Starts real `triune` processes on loopback addresses."""

import contextlib
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.forked import ForkedServer

TRIUNE = str(Path(sys.executable).with_name("triune"))


@dataclass
class Served:
    """A running server, and its output on standard error.

    `process` is None in test processes that did not start the server: see `support.shared_server`.
    """

    process: subprocess.Popen[str] | ForkedServer | None
    http: str
    grpc: str
    metrics: str
    lines: list[str]
    repository: Path

    def interrupt(self) -> None:
        """Send the signal that Ctrl-C sends."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)


def free_ports(count: int) -> list[int]:
    """Find different free ports. They are below the range from which systems choose ports for connections and for port
    0, so that another process is unlikely to take one before the server does.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in ports:
                ports.append(port)
    return ports


@contextlib.contextmanager
def serve(
    repository: Path, *arguments: str, command: Sequence[str] | None = None, ready_seconds: float = 90
) -> Iterator[Served]:
    """Start a server on free ports, wait until it reports where it listens, and stop it at the end.

    Without a command it runs `triune serve`, on Linux as a forked process (`support.forked`). A given command is run as
    it is.
    """
    ports = free_ports(3)
    names = ("http", "grpc", "metrics")
    flags = [
        f"--{name}-port={port}"
        for name, port in zip(names, ports, strict=True)
        if not any(argument.startswith(f"--{name}-port=") for argument in arguments)
    ]
    line = [*(command or (TRIUNE, "serve")), f"--repository={repository}", *flags, *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    if command is None and sys.platform == "linux":
        process = ForkedServer(line, environment)
    else:
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment)
    lines: list[str] = []
    news: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            news.put(line)
        news.put(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        deadline = time.monotonic() + ready_seconds
        while True:
            line = news.get(timeout=max(0.1, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the server ended with {process.wait()}:\n{''.join(lines)}")
            if re.match(r"metrics\s+http", line):
                break
        yield Served(process, *(f"127.0.0.1:{port}" for port in ports), lines, repository)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(5)
        if process.stderr is not None:
            process.stderr.close()
