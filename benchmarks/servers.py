"""Starting and stopping the servers that are measured, and saying on what machine."""

import contextlib
import datetime
import http.client
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from triune.hardware.cpu import read_cpu

# Old workarounds for other numpy builds; they slow the measured libraries down.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


@dataclass(frozen=True)
class Running:
    """A server under test."""

    label: str
    host: str
    http_port: int
    grpc_port: int
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time that the server and its children have used."""
        root = psutil.Process(self.pid)
        total = 0.0
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory_bytes(self) -> int:
        """Resident memory of the server and its children."""
        root = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])


def heading(title: str) -> str:
    """The line that every report starts with: what, on which machine, when, with which versions."""
    import onnxruntime

    cpu = read_cpu()
    versions = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    return f"{title}: {cpu.name}, {cpu.num_cores} cores, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {versions}"


def pinned(cores: str) -> list[str]:
    """What to put before a command so that it runs on `cores` ("0,1") alone; nothing if none are named."""
    return ["taskset", "--cpu-list", cores] if cores else []


def program_of(root: Path) -> tuple[str, ...]:
    """The interpreter's arguments that serve with the checkout at `root`, wherever its package is installed from."""
    code = f"import sys; sys.path.insert(0, {str(root / 'src')!r}); from triune.cli import main; sys.exit(main())"
    return ("-c", code, "serve")


@contextlib.contextmanager
def triune(
    repository: Path,
    *arguments: str,
    label: str = "triune",
    port: int = 19000,
    cores: str = "",
    program: Sequence[str] = ("-m", "triune", "serve"),
) -> Iterator[Running]:
    """Triune on `repository`, on ports `port` (HTTP), +1 (gRPC), +2 (metrics), on `cores` alone if any are named."""
    command = [
        *pinned(cores), sys.executable, *program, f"--repository={repository}", f"--http-port={port}",
        f"--grpc-port={port + 1}", f"--metrics-port={port + 2}", *arguments,
    ]  # fmt: skip
    with _started(command, label, port) as running:
        yield running


@contextlib.contextmanager
def triton(repository: Path, peers: Path, *arguments: str) -> Iterator[Running]:
    """The peer Triton that `setup.sh` in `peers` installed."""
    with _started(["bash", str(peers / "triton.sh"), str(repository), *arguments], "triton", 18000) as running:
        yield running


@contextlib.contextmanager
def _started(command: Sequence[str], label: str, port: int) -> Iterator[Running]:
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_ready(process, port)
        yield Running(label, "127.0.0.1", port, port + 1, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}: {process.args}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server was not ready in 180 s: {process.args}")
