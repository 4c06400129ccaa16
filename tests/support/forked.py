"""Forks servers from a process that has already imported Triune, since importing it takes each server a second. Linux
only.

When this file is run as a program, it is that process. It has no threads, and forks a server for each message that it
reads. A forked server behaves like one that was started normally, from its command line to its end.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TextIO

_IMPORTED = (
    "triune.cli",
    "triune.cli.commands",
    "triune.cli.serve",
    "triune.cli.serving",
    "triune.cli.triton_flags",
    "triune.runtimes.coreai",
    "triune.runtimes.coreml",
    "triune.runtimes.mlx",
    "triune.runtimes.openvino",
    "triune.graph.growth",
    "typer._adapters",
    "anyio._backends._asyncio",
    "encodings.idna",
)
"""What a server imports until it is ready, but for ONNX Runtime: its library starts a thread, which a forked process
lacks. Some may not be installed.
"""

_MESSAGE_BYTES = 1 << 20
_NUMBER_BYTES = 16
"""The number of a process, and how it ended, are read one by one."""


class ForkedServer:
    """A forked server, with the part of `subprocess.Popen`'s methods that tests use.

    Attributes:
        pid: the id of its process.
        returncode: as in `subprocess.Popen`.
        stderr: the stream of its standard error.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        reader, writer = os.pipe()
        self._status, status = os.pipe()
        message = json.dumps({"argv": list(command), "environment": environment, "folder": str(Path.cwd())})
        socket.send_fds(_parent(), [message.encode()], [writer, status])
        os.close(writer)
        os.close(status)
        self.stderr: TextIO = os.fdopen(reader, errors="replace")
        self.pid = int(self._read() or "0")
        assert self.pid, "the process that forks servers has ended"

    def _read(self) -> str:
        return os.read(self._status, _NUMBER_BYTES).decode()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("triune", timeout or 0)
        return code

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._read() or str(-signal.SIGKILL))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _parent() -> socket.socket:
    """The channel to the forking process, which ends when the channel is closed or this process ends."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(there.fileno())], stdin=subprocess.DEVNULL, pass_fds=[there.fileno()]
        )
    # No code waits for the forking process, since it ends after this process.
    process.returncode = 0
    return here


def _serve_messages(channel: socket.socket) -> dict[str, Any]:
    """Fork a server for each message. In each server, this function returns its message."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 2)
        if not data:
            sys.exit()
        if not os.fork():
            channel.close()
            return _fork_and_wait(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork_and_wait(message: dict[str, Any], errors: int, status: int) -> dict[str, Any]:
    """Fork the server, and report how it ended. In the server, this function returns."""
    if not (pid := os.fork()):
        os.close(status)
        os.dup2(errors, 2)
        os.close(errors)
        return message
    os.close(errors)
    os.close(1)
    os.close(2)
    os.write(status, _number(pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, _number(code))
    os._exit(0)


def _number(value: int) -> bytes:
    return str(value).rjust(_NUMBER_BYTES).encode()


def _become_server(message: dict[str, Any]) -> None:
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["environment"])
    sys.argv = message["argv"]


def main() -> NoReturn:
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert "onnxruntime" not in sys.modules
    gc.collect()
    gc.freeze()
    _become_server(_serve_messages(socket.socket(fileno=int(sys.argv[1]))))
    gc.unfreeze()
    sys.exit(importlib.import_module("triune.cli").main())


if __name__ == "__main__":
    main()
