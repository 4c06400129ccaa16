"""Every block of the README that is a program runs; so do those of the first page.

Of that page they are the blocks for whoever owns a Mac: `test_index.py` has the others. With `--whole` they run as they
stand, against the demo that the README starts. Otherwise they run with the addresses of the server that the tests of
real models share, which serves the same models and a broken one: whether all are ready is asked of a demo of one model.
"""

import fcntl
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import TRIUNE, Served, serve

ROOT = Path(__file__).parents[2]
PAGES = ((ROOT / "README.md").read_text(), (ROOT / "docs/index.md").read_text().partition("## You ship")[0])
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", "\n".join(PAGES), re.DOTALL | re.MULTILINE)
PORTS = (8000, 8001, 8002)
NAMES = ("http", "grpc", "metrics")
LOCK = Path(tempfile.gettempdir()) / f"triune-readme-{os.getuid()}.lock"
"""Held by the process of tests that has the ports: another with blocks of these pages waits for it."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`triune demo` on the ports that the README names; built models are kept in the user's cache."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for port in PORTS:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    pytest.fail(f"port {port} is taken: the README's examples use it; stop what listens there")
        folder = tmp_path_factory.mktemp("demo")
        flags = [f"--{name}-port={port}" for name, port in zip(NAMES, PORTS, strict=True)]
        with serve(folder, *flags, command=(TRIUNE, "demo"), ready_seconds=600) as served:
            yield served


@pytest.fixture
def small_demo(tmp_path: Path) -> Iterator[Served]:
    """`triune demo` of one model, on free ports."""
    with serve(tmp_path, "--model=simple", command=(TRIUNE, "demo")) as served:
        yield served


def at(served: Served, code: str) -> str:
    """The block, with the server's addresses in place of the demo's. Examples get theirs as an argument."""
    addresses = {f"127.0.0.1:{port}": str(getattr(served, name)) for name, port in zip(NAMES, PORTS, strict=True)}
    for name in re.findall(r"examples/\w+\.py", code):
        (default,) = re.findall(r'"--url", default="(.+?)"', (ROOT / name).read_text())
        code = code.replace(name, f"{name} --url={addresses[default]}")
    for page, own in addresses.items():
        code = code.replace(page, own)
    return code


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=[f"{i}-{block[0]}" for i, block in enumerate(BLOCKS)])
def test_block(request: pytest.FixtureRequest, language: str, code: str) -> None:
    is_whole = request.config.getoption("--whole")
    shared = "small_demo" if "health/ready" in code else "real_models"
    served: Served = request.getfixturevalue("demo" if is_whole else shared)
    code = code if is_whole else at(served, code)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    environment = {**os.environ, "PATH": path}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{''.join(served.lines)}"
    if "health/ready" in code:
        assert result.stdout.endswith("ready\n")
    if "classify_image" in code:
        assert "cat" in result.stdout.lower()
    if "compare_sentences" in code:
        similarity = float(re.findall(r"-?\d\.\d+", result.stdout)[-1])
        assert similarity > 0.6
    if "simple/infer" in code:
        assert '"data":[1,2,3,4' in result.stdout.replace(" ", "")
    if "chat/completions" in code:
        # What so small a model says depends on the rounding of the precision that is fastest on the machine.
        assert re.search(r'"content":"[^"]', result.stdout)
    if "nv_inference_count" in code:
        assert 'model="simple"' in result.stdout
